/** The duties of PID 1, as PID 1 of a namespace and as a subreaper: signals, orphans, exit codes, the end of all. */

import assert from "node:assert/strict";
import type { Child } from "../../src/platform/child_process.ts";
import { sendSignal, spawnChild } from "../../src/platform/child_process.ts";
import { readProcesses } from "../../src/platform/proc.ts";
import { until } from "../support/supervised.ts";

const FIXTURE = new URL("../support/fixtures/init_main.ts", import.meta.url).pathname;
const CONFIG = new URL("../deno.json", import.meta.url).pathname;
const DENO = [
  Deno.execPath(),
  "run",
  "-A",
  "--quiet",
  "--no-check",
  "--config",
  CONFIG,
  FIXTURE,
];
const UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/** PID namespaces need root or user namespaces; without them those tests are left out. */
const namespaces = await spawnChild({
  command: "sh",
  args: ["-c", `${UNSHARE.join(" ")} true`],
}).status
  .then(({ code }) => code === 0, () => false);

class Init implements AsyncDisposable {
  readonly facts: Record<string, unknown>[] = [];
  readonly #child: Child;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #read: Promise<void>;

  constructor(argv: readonly string[]) {
    this.#child = spawnChild({
      command: argv[0] ?? "",
      args: argv.slice(1),
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    });
    assert.ok(this.#child.stdin && this.#child.stdout);
    this.#writer = this.#child.stdin.getWriter();
    this.#read = this.#collect(this.#child.stdout);
  }

  async #collect(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  ): Promise<void> {
    let text = "";
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (text + chunk).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) this.facts.push(JSON.parse(line));
    }
  }

  command(line: string): Promise<void> {
    return this.#writer.write(new TextEncoder().encode(line + "\n"));
  }

  async fact(name: string): Promise<unknown> {
    await until(() => this.facts.some((fact) => name in fact), name);
    return this.facts.find((fact) => name in fact)?.[name];
  }

  /** The init itself, also below `unshare`. */
  get pid(): number {
    const below = readProcesses().find((info) => info.parentPid === this.#child.pid && info.name === "deno");
    return below?.pid ?? this.#child.pid;
  }

  status(): Child["status"] {
    return this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#read;
    await this.#writer.close().catch(() => {});
  }
}

for (
  const [kind, needs, argv, ignore] of [
    ["PID 1", "[needs root]", [...UNSHARE, ...DENO], !namespaces],
    ["subreaper", "", DENO, false],
  ] as const
) {
  Deno.test({
    name: `init as ${kind} reaps 500 orphans and keeps the exit codes of its own children ${needs}`.trim(),
    ignore,
    fn: async () => {
      await using init = new Init(argv);
      assert.equal(await init.fact("pid") === 1, kind === "PID 1");
      await init.command("orphans 500");
      await init.command("exit 7");
      assert.equal(await init.fact("code"), 7);
      assert.equal(await init.fact("reaped"), 500);
      assert.equal(await init.fact("zombies"), 0);
    },
  });

  Deno.test({
    name: `init as ${kind} hears TERM, INT, HUP and the rest, and lives on ${needs}`.trim(),
    ignore,
    fn: async () => {
      await using init = new Init(argv);
      await init.fact("pid");
      const signals = [
        "SIGTERM",
        "SIGINT",
        "SIGHUP",
        "SIGQUIT",
        "SIGUSR1",
        "SIGUSR2",
        "SIGWINCH",
        "SIGALRM",
        "SIGPWR",
        "SIGTSTP",
      ] as const;
      for (
        const signal of [
          ...signals,
          "SIGPIPE",
          "SIGTTIN",
          "SIGTTOU",
        ] as const
      ) sendSignal(init.pid, signal);
      await until(
        () =>
          init.facts.filter((fact) => "signal" in fact).length >=
            signals.length,
        "the signals",
      );
      await init.command("exit 0");
      assert.equal(await init.fact("code"), 0);
      const heard = init.facts.flatMap((fact) => "signal" in fact ? [fact["signal"]] : []);
      assert.deepEqual(heard.sort(), [...signals].sort());
    },
  });
}

Deno.test({
  name: "endEverything as PID 1 kills what ignores TERM [needs root]",
  ignore: !namespaces,
  fn: async () => {
    await using init = new Init([...UNSHARE, ...DENO]);
    await init.fact("pid");
    await init.command("end");
    assert.ok(Number(await init.fact("ended")) >= 195, "no grace was given");
    assert.equal((await init.status()).code, 0);
  },
});
