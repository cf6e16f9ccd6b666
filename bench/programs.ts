/** The programs that the benchmark measures. */

import { watched } from "./process_memory.ts";

const root = new URL("../", import.meta.url).pathname;

function binary(): string | undefined {
  const named = Deno.env.get("STATE_MANAGER_BINARY");
  if (named !== undefined) return named;
  try {
    return Deno.statSync(`${root}state-manager`).isFile ? `${root}state-manager` : undefined;
  } catch {
    return undefined;
  }
}

/** argv of the program under test. */
export function programCommand(args: readonly string[]): string[] {
  const path = binary();
  if (path !== undefined) return [path, ...args];
  return [Deno.execPath(), "run", "-A", "--quiet", "--config", `${root}deno.json`, `${root}main.ts`, ...args];
}

/** Nothing of ours that is set for the bench or by who runs it is a setting of what is measured. */
function environment(more: Readonly<Record<string, string>> = {}) {
  const ours = /^STATE_MANAGER_/;
  const env = Object.entries(Deno.env.toObject()).filter(([name]) => !ours.test(name));
  return { clearEnv: true, env: { ...Object.fromEntries(env), ...more } };
}

/** Runs a command to its end and gives what it printed; fails with what it said where it fails. */
export async function output(argv: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const [command = "", ...args] = argv;
  const { success, stdout, stderr } = await new Deno.Command(command, {
    args,
    ...environment(env),
    stdin: "null",
  }).output();
  const text = new TextDecoder();
  if (!success) throw new Error(`${argv.join(" ")}: ${text.decode(stderr).slice(-2000)}`);
  return text.decode(stdout).trim();
}

/** Runs a command to its end: its time, and the largest memory of it with all that it starts. */
export async function runMeasured(
  argv: readonly string[],
  env: Record<string, string> = {},
  cwd?: string,
): Promise<{ readonly ms: number; readonly memoryBytes: number }> {
  const [command = "", ...args] = argv;
  const begin = performance.now();
  const child = new Deno.Command(command, {
    args,
    ...environment(env),
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    ...(cwd === undefined ? {} : { cwd }),
  }).spawn();
  const { result, memory } = await watched(child.pid, () => child.output());
  const ms = performance.now() - begin;
  const said = new TextDecoder().decode(result.stderr).slice(-2000);
  if (!result.success) throw new Error(`${argv.join(" ")}: ${said}`);
  return { ms, memoryBytes: memory.own + memory.below };
}

const START_LIMIT_MS = 30_000;

/** A manager with a program that does nothing, on a folder store unless another is named. */
export class Manager {
  readonly store: string;
  readonly #url: string;
  readonly #child: Deno.ChildProcess;

  private constructor(store: string, url: string, child: Deno.ChildProcess) {
    this.store = store;
    this.#url = url;
    this.#child = child;
  }

  static async start(
    home: string,
    data: string,
    more: { readonly store?: readonly string[]; readonly env?: Record<string, string> } = {},
  ): Promise<Manager> {
    await Deno.mkdir(home, { recursive: true });
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr as Deno.NetAddr;
    listener.close();
    const store = `${home}/store`;
    const [command = "", ...args] = programCommand([
      ...[
        "run",
        ...(more.store ?? ["--directory", store]),
        "--data-dir",
        `${home}/manager`,
        "--listen",
        `127.0.0.1:${port}`,
      ],
      ...["--files", `data=${data}`, "--checkpoint-interval", "24h", "--", "sleep", "86400"],
    ]);
    const quiet = { stdin: "null", stdout: "null", stderr: "null" } as const;
    const manager = new Manager(
      store,
      `http://127.0.0.1:${port}`,
      new Deno.Command(command, { args, ...environment(more.env), ...quiet }).spawn(),
    );
    const end = performance.now() + START_LIMIT_MS;
    while (
      !await fetch(`${manager.#url}/readyz`).then(
        (answer) => answer.body?.cancel().then(() => answer.ok),
        () => false,
      )
    ) {
      if (performance.now() > end) throw new Error(`start manager: not ready within ${START_LIMIT_MS} ms`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return manager;
  }

  get url(): string {
    return this.#url;
  }

  get pid(): number {
    return this.#child.pid;
  }

  async checkpoint(): Promise<void> {
    const answer = await fetch(`${this.#url}/checkpoint`, { method: "POST" });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`POST /checkpoint: ${answer.status} ${text}`);
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGTERM");
    } catch {
      // It has ended.
    }
    await this.#child.status;
  }
}
