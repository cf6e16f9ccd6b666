/**
 * Starts the real program for end-to-end tests: the compiled binary where STATE_MANAGER_BINARY names one, else from
 * source. Every manager gets its own folders, its own port, and is gone with all its children when the test ends.
 */

import assert from "node:assert/strict";
import { freePort } from "./free_port.ts";

export { freePort };

const projectRoot = new URL("../../", import.meta.url).pathname;

/** Path of the compiled binary under test, or null: the source is tested. */
export const binaryPath = Deno.env.get("STATE_MANAGER_BINARY") ?? null;

/** argv of the program. */
export function programCommand(args: readonly string[]): string[] {
  if (binaryPath !== null) return [binaryPath, ...args];
  return [
    Deno.execPath(),
    "run",
    "-A",
    "--quiet",
    "--config",
    `${projectRoot}deno.json`,
    `${projectRoot}main.ts`,
    ...args,
  ];
}

/** A scratch folder that is gone when the test is: in `dir`, else where the system has temporary ones. */
export function scratchFolder(dir?: string): { path: string; [Symbol.dispose](): void } {
  const path = Deno.makeTempDirSync({ prefix: "state-manager-test-", ...(dir === undefined ? {} : { dir }) });
  return {
    path,
    [Symbol.dispose]: () => {
      // By rm: trees under test hold names that are no text and folders without rights.
      new Deno.Command("rm", { args: ["-rf", path] }).outputSync();
    },
  };
}

export interface ManagerOptions {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Wraps the command, e.g. ["unshare", "--pid", "--fork", "--mount-proc"]. */
  readonly wrap?: readonly string[];
  /** Path of the program as the wrapper sees it; null: the wrapper knows the whole command line itself. */
  readonly program?: string | null;
  readonly port?: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** Polls `condition` until it gives a value; fails with `what` and what was last seen after `timeoutMs`. */
export async function waitFor<T>(
  what: string,
  condition: () =>
    | Promise<T | null | undefined | false>
    | T
    | null
    | undefined
    | false,
  timeoutMs = 60_000,
  describe: () => string = () => "",
): Promise<T> {
  const end = performance.now() + timeoutMs;
  let lastError = "";
  while (performance.now() < end) {
    try {
      const value = await condition();
      if (value !== null && value !== undefined && value !== false) {
        return value;
      }
    } catch (error) {
      lastError = String(error);
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(
    `waited ${timeoutMs} ms for ${what}: ${lastError}\n${describe()}`,
  );
}

/** What the public face documents; tests read it freely. */
// deno-lint-ignore no-explicit-any
export type Json = any;

/** All descendants of `pid`, from /proc. */
export function descendants(pid: number): number[] {
  const parents = new Map<number, number[]>();
  for (const entry of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(entry.name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${entry.name}/stat`);
      const parent = Number(
        stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1],
      );
      parents.set(parent, [...(parents.get(parent) ?? []), Number(entry.name)]);
    } catch {
      // gone meanwhile
    }
  }
  const found: number[] = [];
  const queue = [pid];
  while (queue.length > 0) {
    const children = parents.get(queue.shift() ?? 0) ?? [];
    found.push(...children);
    queue.push(...children);
  }
  return found;
}

export class ManagerProcess {
  readonly #child: Deno.ChildProcess;
  readonly url: string;
  #stdout = "";
  #stderr = "";
  readonly #pumps: Promise<void>[];
  readonly ended: Promise<Deno.CommandStatus>;

  constructor(options: ManagerOptions) {
    const port = options.port ?? freePort();
    this.url = `http://127.0.0.1:${port}`;
    const program = options.program === undefined
      ? programCommand(options.args)
      : options.program === null
      ? []
      : [options.program, ...options.args];
    const [command = "", ...args] = [...(options.wrap ?? []), ...program];
    this.#child = new Deno.Command(command, {
      args,
      clearEnv: true,
      env: {
        PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin",
        HOME: Deno.env.get("HOME") ?? "/root",
        DENO_NO_UPDATE_CHECK: "1",
        ...(Deno.env.get("DENO_DIR") === undefined ? {} : { DENO_DIR: Deno.env.get("DENO_DIR") ?? "" }),
        STATE_MANAGER_SERVER_LISTEN: `127.0.0.1:${port}`,
        ...options.env,
      },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#pumps = [
      this.#pump(this.#child.stdout, (text) => this.#stdout += text),
      this.#pump(this.#child.stderr, (text) => this.#stderr += text),
    ];
    this.ended = this.#child.status;
  }

  async #pump(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    keep: (text: string) => void,
  ): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of stream) {
      keep(decoder.decode(bytes, { stream: true }));
    }
  }

  get pid(): number {
    return this.#child.pid;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  async fetch(
    path: string,
    init: RequestInit & { json?: unknown } = {},
  ): Promise<Response> {
    const { json, ...rest } = init;
    return await fetch(this.url + path, {
      ...rest,
      ...(json === undefined ? {} : {
        body: JSON.stringify(json),
        method: rest.method ?? "POST",
        headers: { "content-type": "application/json", ...rest.headers },
      }),
    });
  }

  /** Status code of a GET; the body is let go. */
  async statusOf(path: string, init: RequestInit & { json?: unknown } = {}): Promise<number> {
    const response = await this.fetch(path, init);
    await response.body?.cancel();
    return response.status;
  }

  async json(
    path: string,
    init: RequestInit & { json?: unknown } = {},
  ): Promise<Json> {
    const response = await this.fetch(path, init);
    const text = await response.text();
    assert.ok(
      response.ok,
      `${init.method ?? "GET"} ${path}: ${response.status} ${text}\n${this.tail()}`,
    );
    return JSON.parse(text);
  }

  /** A checkpoint now; waits while an automatic one is under way. */
  async checkpoint(comment = ""): Promise<Json> {
    return await waitFor("a checkpoint", async () => {
      const response = await this.fetch("/checkpoint", { json: { comment } });
      const body = await response.json();
      if (response.status === 409) return null;
      assert.equal(response.status, 201, JSON.stringify(body) + this.tail());
      return body;
    }, 120_000);
  }

  async state(wanted: string, timeoutMs = 60_000): Promise<Json> {
    return await waitFor(
      `state ${wanted}`,
      async () => {
        const status = JSON.parse(
          await (await this.fetch("/", {
            headers: { accept: "application/json" },
          })).text(),
        );
        return status.state === wanted ? status : null;
      },
      timeoutMs,
      () => this.tail(),
    );
  }

  tail(): string {
    return `--- stdout\n${this.#stdout.slice(-3000)}\n--- stderr\n${this.#stderr.slice(-6000)}`;
  }

  signal(name: Deno.Signal): void {
    this.#child.kill(name);
  }

  /** Ends the manager and everything below it, all at once, as a machine that loses power does. */
  async killTree(): Promise<void> {
    const pids = [this.#child.pid, ...descendants(this.#child.pid)];
    for (const pid of pids) {
      try {
        Deno.kill(pid, "SIGSTOP"); // nobody reacts to the death of another
      } catch { /* gone */ }
    }
    for (const pid of pids) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch { /* gone */ }
    }
    await Promise.all([this.exit(), ...pids.map(freeOfTracer)]);
  }

  /** Waits for the end and returns the exit code (128 + n for a signal). */
  async exit(timeoutMs = 60_000): Promise<number> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () =>
          reject(
            new Error(
              `manager still runs after ${timeoutMs} ms\n${this.tail()}`,
            ),
          ),
        timeoutMs,
      );
    });
    try {
      const status = await Promise.race([this.ended, late]);
      await Promise.race([Promise.all(this.#pumps), late]);
      return status.code;
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.killTree().catch(() => {});
  }
}

const TRACER_MS = 1_000;

/**
 * An strace may never take the end of a process that it has killed, and then holds on to all that it traces. The dead are
 * given to it for a while; then it is killed, and the kernel lets go.
 */
async function freeOfTracer(pid: number): Promise<void> {
  const end = Date.now() + TRACER_MS;
  for (;;) {
    const tracer = tracerOfDead(pid);
    if (tracer === 0) return;
    if (Date.now() > end) {
      try {
        Deno.kill(tracer, "SIGKILL");
      } catch { /* gone */ }
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** 0: it lives, or nobody traces it. */
export function tracerOfDead(pid: number): number {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    if (!/^State:\s+Z/m.test(status)) return 0;
    return Number(/^TracerPid:\s+(\d+)$/m.exec(status)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Runs a command of the program to its end. */
export async function runProgram(
  args: readonly string[],
  options: {
    readonly env?: Readonly<Record<string, string>>;
    readonly cwd?: string;
  } = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  const manager = new ManagerProcess({ args, ...options });
  const code = await manager.exit(60_000);
  return { code, stdout: manager.stdout, stderr: manager.stderr };
}
