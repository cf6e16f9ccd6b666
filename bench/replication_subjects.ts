/** Who is measured: a program alone, State Manager with the program below it, the real Litestream beside it. */

import { findLitestream } from "../tests/support/litestream.ts";
import { descendants, ManagerProcess, runProgram, waitFor } from "../tests/support/manager_process.ts";
import type { Minio } from "../tests/support/minio.ts";
import { argvOf } from "./replication_probe.ts";
import { output } from "./programs.ts";

export interface Scene {
  /** A folder of its own. */
  readonly home: string;
  readonly database: string;
  /** Where the store is reached: through the counting proxy, or itself. */
  readonly endpoint: string;
  readonly minio: Minio;
}

export interface Running extends AsyncDisposable {
  /** Processes that replicate: all, and the one that does the work. */
  readonly pids: readonly number[];
  readonly workerPid: number | null;
  /** What it says of its lag, in seconds; null: it says nothing. */
  lagSeconds(): Promise<number | null>;
  /** Ends the program, and the replication after its last sync. */
  stop(): Promise<void>;
}

export interface Subject {
  readonly name: string;
  /** Path of its files in the bucket. */
  readonly prefix: string;
  readonly replicates: boolean;
  /** Starts it with the writer. */
  start(scene: Scene, writer: readonly string[]): Promise<Running>;
  /** Puts what the database is now into the store, and ends. */
  once(scene: Scene): Promise<void>;
  /** By its own restore, without a check of the result. */
  restore(scene: Scene, to: string): Promise<void>;
}

const START_LIMIT_MS = 60_000;

function spawnWriter(writer: readonly string[]): Deno.ChildProcess {
  const [command = "", ...args] = writer;
  return new Deno.Command(command, { args, stdin: "null", stdout: "inherit", stderr: "inherit" }).spawn();
}

async function end(child: Deno.ChildProcess, signal: Deno.Signal): Promise<void> {
  try {
    child.kill(signal);
  } catch {
    // It has ended.
  }
  const { code } = await child.status;
  if (code !== 0) throw new Error(`a process of the benchmark ended with ${code}`);
}

const NOTHING = () => Promise.resolve(null);

export const alone: Subject = {
  name: "alone",
  prefix: "",
  replicates: false,
  start(_scene, writer) {
    const child = spawnWriter(writer);
    const stop = () => end(child, "SIGTERM");
    return Promise.resolve({
      pids: [],
      workerPid: null,
      lagSeconds: NOTHING,
      stop,
      [Symbol.asyncDispose]: () => stop().catch(() => {}),
    });
  },
  once: () => Promise.resolve(),
  restore: () => Promise.resolve(),
};

function storeArgs({ minio, endpoint }: Scene, prefix = ours.prefix): string[] {
  return ["--bucket", minio.bucket, "--endpoint", endpoint, "--region", "us-east-1", "--prefix", prefix];
}

function storeEnv({ minio }: Scene): Record<string, string> {
  return { AWS_ACCESS_KEY_ID: minio.accessKey, AWS_SECRET_ACCESS_KEY: minio.secretKey };
}

function manage(scene: Scene, program: readonly string[], replicates = true): ManagerProcess {
  const { home, database } = scene;
  return new ManagerProcess({
    args: [
      ...["run", ...storeArgs(scene, replicates ? ours.prefix : supervised.prefix)],
      ...(replicates ? ["--database", `app=${database}`] : []),
      ...["--data-dir", `${home}/manager`, "--", ...program],
    ],
    env: storeEnv(scene),
  });
}

/** A process of the manager, by a word of its command line. */
async function childOf(manager: ManagerProcess, word: string): Promise<number> {
  return await waitFor(
    `the process ${word}`,
    () => descendants(manager.pid).find((pid) => argvOf(pid).includes(word)),
    START_LIMIT_MS,
    () => manager.tail(),
  );
}

async function startManaged(
  scene: Scene,
  writer: readonly string[],
  replicates: boolean,
): Promise<Running> {
  const manager = manage(scene, writer, replicates);
  try {
    const workerPid = replicates ? await childOf(manager, "__follow") : null;
    const guardPid = await childOf(manager, "__guard");
    return {
      pids: [manager.pid, guardPid, ...(workerPid === null ? [] : [workerPid])],
      workerPid,
      async lagSeconds() {
        const { databases: [status] } = await manager.json("/databases");
        return status?.lag_seconds ?? null;
      },
      async stop() {
        manager.signal("SIGTERM");
        const code = await manager.exit(START_LIMIT_MS);
        if (code !== 0) throw new Error(`state-manager ended with ${code}\n${manager.tail()}`);
      },
      [Symbol.asyncDispose]: () => manager[Symbol.asyncDispose](),
    };
  } catch (error) {
    await manager[Symbol.asyncDispose]();
    throw error;
  }
}

/** State Manager without a database: what lease and supervision take, which Litestream has not. */
export const supervised: Subject = {
  name: "supervised",
  prefix: "supervised",
  replicates: false,
  start: (scene, writer) => startManaged(scene, writer, false),
  once: () => Promise.resolve(),
  restore: () => Promise.resolve(),
};

export const ours: Subject = {
  name: "state-manager",
  prefix: "ours",
  replicates: true,
  start: (scene, writer) => startManaged(scene, writer, true),
  async once(scene) {
    await using manager = manage(scene, ["true"]);
    const code = await manager.exit(10 * START_LIMIT_MS);
    if (code !== 0) throw new Error(`state-manager ended with ${code}\n${manager.tail()}`);
  },
  async restore(scene, to) {
    const args = ["db", "restore", "app", ...storeArgs(scene), "--to", to, "--check", "none"];
    const { code, stderr } = await runProgram(args, { env: storeEnv(scene) });
    if (code !== 0) throw new Error(`state-manager db restore ended with ${code}: ${stderr}`);
  },
};

/** All as by default: a sync each second, levels of 30 s, 5 min and 1 h. JSON is YAML. */
function writeConfig({ home, database, endpoint, minio }: Scene): string {
  const replica = {
    ...{ type: "s3", bucket: minio.bucket, path: theirs.prefix, endpoint, region: "us-east-1" },
    ...{ "access-key-id": minio.accessKey, "secret-access-key": minio.secretKey, "force-path-style": true },
  };
  const path = `${home}/litestream.yml`;
  Deno.writeTextFileSync(path, JSON.stringify({ dbs: [{ path: database, replica }] }));
  return path;
}

function litestreamProgram(): string {
  const program = findLitestream();
  if (program === null) {
    throw new Error("start Litestream: not found (STATE_MANAGER_TEST_LITESTREAM names it)");
  }
  return program;
}

/** It refuses to start with some variables set (AWS_CA_BUNDLE, say). */
const CLEAN_ENV = { HOME: "/nonexistent" };

export async function litestreamVersion(): Promise<string> {
  return await output([litestreamProgram(), "version"]);
}

export const theirs: Subject = {
  name: "litestream",
  prefix: "theirs",
  replicates: true,
  start(scene, writer) {
    const config = writeConfig(scene);
    const replicate = new Deno.Command(litestreamProgram(), {
      args: ["replicate", "-config", config],
      clearEnv: true,
      env: CLEAN_ENV,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const program = spawnWriter(writer);
    const stop = async () => {
      await end(program, "SIGTERM");
      await end(replicate, "SIGINT");
    };
    return Promise.resolve({
      pids: [replicate.pid],
      workerPid: replicate.pid,
      lagSeconds: NOTHING,
      stop,
      [Symbol.asyncDispose]: () => stop().catch(() => {}),
    });
  },
  async once(scene) {
    await litestreamRun(["replicate", "-once", "-config", writeConfig(scene)]);
  },
  async restore(scene, to) {
    await litestreamRun(["restore", "-config", writeConfig(scene), "-o", to, scene.database]);
  },
};

async function litestreamRun(args: string[]): Promise<void> {
  const { code, stdout, stderr } = await new Deno.Command(litestreamProgram(), {
    args,
    clearEnv: true,
    env: CLEAN_ENV,
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  if (code !== 0) {
    throw new Error(
      `litestream ${args[0]} ended with ${code}: ${decoder.decode(stdout)}${decoder.decode(stderr)}`,
    );
  }
}
