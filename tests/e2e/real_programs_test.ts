/**
 * Programs as Debian ships them, unchanged: each is killed again and again and comes back to serve, ends by the signal
 * that it knows, and nothing of what it says is missing.
 */

import assert from "node:assert/strict";
import { findTool } from "../support/find_tool.ts";
import { freePort, type Json, ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { isRoot } from "../support/small_root.ts";

const CRASHES = 5;
const nginx = findTool("nginx") ?? existing("/usr/sbin/nginx");
const redis = findTool("redis-server");
const postgres = newestPostgres();

function existing(path: string): string | null {
  try {
    return Deno.statSync(path).isFile ? path : null;
  } catch {
    return null;
  }
}

/** Folder of the server's programs. */
function newestPostgres(): string | null {
  const root = "/usr/lib/postgresql";
  try {
    const versions = [...Deno.readDirSync(root)].map(({ name }) => Number(name)).filter(Number.isInteger);
    const newest = versions.toSorted((a, b) => b - a).map((version) => `${root}/${version}/bin`);
    return newest.find((folder) => existing(`${folder}/postgres`) !== null) ?? null;
  } catch {
    return null;
  }
}

class Scene implements AsyncDisposable {
  readonly #scratch = scratchFolder();
  readonly root = this.#scratch.path;
  readonly log = `${this.root}/program.log`;
  #manager: ManagerProcess | null = null;

  constructor() {
    Deno.chmodSync(this.root, 0o755);
  }

  get manager(): ManagerProcess {
    assert.ok(this.#manager);
    return this.#manager;
  }

  async start(program: Json): Promise<void> {
    const config = {
      storage: { directory: `${this.root}/store` },
      checkpoint: { interval: "1h" },
      shutdown: { budget: "2m", flush_reserve: "1m" },
      processes: {
        program: {
          restart_delay: "10ms",
          restart_max_delay: "50ms",
          timeout_stop: "60s",
          essential: false,
          logs: { path: this.log },
          ...program,
        },
      },
    };
    Deno.writeTextFileSync(`${this.root}/config.json`, JSON.stringify(config), { mode: 0o600 });
    this.#manager = new ManagerProcess({
      args: ["--config", `${this.root}/config.json`, "--data-dir", `${this.root}/data`],
    });
    await this.manager.state("running");
  }

  async process(): Promise<Json> {
    return await this.manager.json("/processes/program");
  }

  text(): string {
    try {
      return Deno.readTextFileSync(this.log);
    } catch {
      return "";
    }
  }

  count(pattern: RegExp): number {
    return [...this.text().matchAll(new RegExp(pattern.source, "gm"))].length;
  }

  /** Waits until all of the log is there. */
  async logs(what: string, pattern: RegExp, times: number): Promise<void> {
    await waitFor(what, () => this.count(pattern) >= times, 60_000, () => this.text().slice(-4000));
    assert.equal(this.count(pattern), times, what);
  }

  /** Kills the leader, `CRASHES` times; each time the next one serves. */
  async crash(serves: (turn: number) => Promise<void>): Promise<void> {
    for (let turn = 0; turn <= CRASHES; turn++) {
      const { pid } = await waitFor("a start", async () => {
        const process = await this.process();
        return process.restarts === turn && process.pid !== null ? process : null;
      });
      await serves(turn);
      if (turn < CRASHES) Deno.kill(pid, "SIGKILL");
    }
  }

  async stop(): Promise<Json> {
    return await this.manager.json("/processes/program/stop", { json: { wait: "90s" } });
  }

  async end(): Promise<void> {
    this.manager.signal("SIGTERM");
    assert.equal(await this.manager.exit(60_000), 0, this.manager.tail());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#manager?.[Symbol.asyncDispose]();
    this.#scratch[Symbol.dispose]();
  }
}

Deno.test({
  name:
    "nginx serves after each crash with its workers, ends by QUIT, and every request is in its log [needs nginx]",
  ignore: nginx === null,
  async fn() {
    await using scene = new Scene();
    const { root } = scene;
    const port = freePort();
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    Deno.writeTextFileSync(
      `${root}/nginx.conf`,
      `daemon off; worker_processes 2; pid ${root}/nginx.pid; error_log stderr notice;
      ${isRoot ? "user root;" : ""}
      events { worker_connections 64; }
      http { access_log /dev/stdout;
        ${paths.map((name) => `${name}_temp_path ${root}/${name};`).join("\n")}
        server { listen 127.0.0.1:${port}; location / { return 200 "served"; } } }`,
    );
    await scene.start({
      command: [nginx, "-p", root, "-c", `${root}/nginx.conf`, "-e", "stderr"],
      stop_signal: "SIGQUIT",
      probes: { readiness: { http: { port }, period: "100ms" } },
    });
    const perTurn = 200;
    await scene.crash(async (turn) => {
      await waitFor("an answer", async () => {
        const answer = await fetch(`http://127.0.0.1:${port}/first-${turn}`);
        return await answer.text() === "served";
      });
      for (let i = 0; i < perTurn; i++) {
        await (await fetch(`http://127.0.0.1:${port}/request-${turn}-${i}`)).body?.cancel();
      }
      // It writes before it answers, but only what was read from its pipe outlives it.
      await scene.logs(`requests of turn ${turn}`, new RegExp(`GET /request-${turn}-\\d+ `), perTurn);
    });
    const stopped = await scene.stop();
    assert.deepEqual([stopped.state, stopped.last_exit.kind, stopped.last_exit.code], ["stopped", "exit", 0]);
    await scene.logs("all requests, each once", /GET \/request-\d+-\d+ /, perTurn * (CRASHES + 1));
    assert.match(scene.text(), /gracefully shutting down/);
    await scene.end();
  },
});

Deno.test({
  name:
    "redis serves after each crash with what it had saved, and saves when it is asked to end [needs redis]",
  ignore: redis === null,
  async fn() {
    await using scene = new Scene();
    const { root } = scene;
    const port = freePort();
    Deno.mkdirSync(`${root}/redis`);
    const options = [
      "--port",
      `${port}`,
      "--bind",
      "127.0.0.1",
      "--dir",
      `${root}/redis`,
      "--appendonly",
      "yes",
    ];
    await scene.start({
      command: [redis, ...options, "--appendfsync", "always", "--save", "3600 1"],
      probes: { readiness: { log: { contains: "Ready to accept connections" } } },
    });
    await scene.crash(async (turn) => {
      // While it loads what it had saved it says that.
      const count = await waitFor("an answer", async () => {
        const answer = await redisAnswer(port, "INCR turns");
        return answer.startsWith("-LOADING") ? null : answer;
      });
      assert.equal(count, `:${turn + 1}`);
    });
    // It answers before its line has been read.
    await waitFor("readiness", async () => (await scene.process()).ready);
    const stopped = await scene.stop();
    assert.deepEqual([stopped.state, stopped.last_exit.kind, stopped.last_exit.code], ["stopped", "exit", 0]);
    await scene.logs("every start", /Ready to accept connections/, CRASHES + 1);
    await scene.logs("the end", /Redis is now ready to exit, bye bye/, 1);
    await scene.end();
  },
});

/** First line of the answer to one command. */
async function redisAnswer(port: number, command: string): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode(`${command}\r\n`));
  const buffer = new Uint8Array(1024);
  const size = await connection.read(buffer) ?? 0;
  return new TextDecoder().decode(buffer.subarray(0, size)).split("\r\n")[0] ?? "";
}

Deno.test({
  name:
    "PostgreSQL starts after each crash on what its children left, and ends by INT, its fast way [needs postgresql] [needs root]",
  ignore: postgres === null || !isRoot,
  async fn() {
    await using scene = new Scene();
    const data = `${scene.root}/cluster`;
    const port = freePort();
    Deno.mkdirSync(data, { mode: 0o700 });
    await run("chown", "postgres:postgres", data);
    const asPostgres = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"];
    await run(...asPostgres, `${postgres}/initdb`, "-D", data, "-A", "trust", "-N", "--no-instructions");
    await scene.start({
      command: [
        ...[`${postgres}/postgres`, "-D", data, "-p", `${port}`, "-c", "listen_addresses=127.0.0.1"],
        ...["-c", "unix_socket_directories=", "-c", "shared_buffers=16MB", "-c", "fsync=off"],
      ],
      user: "postgres",
      stop_signal: "SIGINT",
      probes: {
        readiness: {
          exec: { command: [`${postgres}/pg_isready`, "-q", "-h", "127.0.0.1", "-p", `${port}`] },
          period: "100ms",
        },
      },
    });
    const sql = (text: string) =>
      run(`${postgres}/psql`, "-qAt", "-h", "127.0.0.1", "-p", `${port}`, "-U", "postgres", "-c", text);
    await scene.crash(async (turn) => {
      await waitFor("it to be ready", async () => (await scene.process()).ready);
      if (turn === 0) await sql("CREATE TABLE turns (n int)");
      await sql(`INSERT INTO turns VALUES (${turn})`);
      assert.equal(await sql("SELECT count(*) FROM turns"), `${turn + 1}`);
    });
    // A client that stays: the smart way (TERM) would wait for it for ever.
    const client = new Deno.Command(`${postgres}/psql`, {
      args: ["-h", "127.0.0.1", "-p", `${port}`, "-U", "postgres", "-c", "SELECT pg_sleep(1000)"],
      stdout: "null",
      stderr: "null",
    }).spawn();
    await waitFor(
      "the client",
      async () =>
        await sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'") === "1",
    );
    const stopped = await scene.stop();
    assert.notEqual((await client.status).code, 0);
    assert.deepEqual([stopped.state, stopped.last_exit.kind, stopped.last_exit.code], ["stopped", "exit", 0]);
    await scene.logs("every start", /LOG: {2}database system is ready to accept connections/, CRASHES + 1);
    await scene.logs("every recovery", /database system was not properly shut down/, CRASHES);
    await scene.logs("the way it ended", /received fast shutdown request/, 1);
    await scene.logs("the end", /database system is shut down/, 1);
    assert.equal(scene.count(/pre-existing shared memory block|lock file .* already exists/), 0);
    await scene.end();
  },
});

/** Runs it to its end; what it printed. */
async function run(...argv: string[]): Promise<string> {
  const [command = "", ...args] = argv;
  const { success, stdout, stderr } = await new Deno.Command(command, { args, cwd: "/" }).output();
  const text = new TextDecoder();
  assert.ok(success, `${argv.join(" ")}: ${text.decode(stderr)}`);
  return text.decode(stdout).trim();
}

Deno.test("a job by schedule, in the shell of a crontab, runs each second, keeps every line, and its failures end nothing", async () => {
  await using scene = new Scene();
  const { root } = scene;
  await scene.start({
    command: `n=$(cat ${root}/n 2>/dev/null || echo 0); n=$((n+1)); echo $n > ${root}/n; echo run $n; ` +
      `seq 1000; [ $((n % 2)) = 0 ] || { echo failed $n >&2; exit 3; }; echo done $n`,
    shell: true,
    schedule: "* * * * * *",
  });
  await waitFor("four runs", () => scene.count(/^done \d+$/) >= 2, 60_000, () => scene.manager.tail());
  await scene.stop();
  const runs = scene.count(/^run \d+$/);
  // The stop may have met one of them in the middle.
  assert.ok(scene.count(/^1000$/) >= runs - 1);
  assert.ok(scene.count(/^failed \d+$/) >= 2);
  await scene.end();
});
