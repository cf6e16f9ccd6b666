/** The sqlite3 command line as a program that uses a database: one process for many commands, each bounded in time. */

import { lineReader } from "./line_chunks.ts";

/** A command takes milliseconds; with a busy machine and a lock to wait for some seconds. */
const RUN_LIMIT_MS = 60_000;

export function findSqliteShell(): string | null {
  const folders = (Deno.env.get("PATH") ?? "").split(":").filter((folder) => folder !== "");
  return folders.map((folder) => `${folder}/sqlite3`).find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  }) ?? null;
}

export interface ShellReply {
  readonly lines: readonly string[];
  /** What it says of statements that did not work; those after one in the same line were not run. */
  readonly errors: readonly string[];
}

export class SqliteShell implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: AsyncIterator<string>;
  #count = 0;

  constructor() {
    // Errors among the rows: so it is known which command they are about.
    this.#child = new Deno.Command("sh", {
      args: ["-c", "exec sqlite3 -batch -init /dev/null 2>&1"],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#lines = lineReader(this.#child.stdout)[Symbol.asyncIterator]();
  }

  /** SQL, each statement ended by a semicolon, or a dot command. Runs whether it works or not. */
  async run(command: string): Promise<ShellReply> {
    const end = `end of command ${++this.#count}`;
    const timer = setTimeout(() => this.#kill(), RUN_LIMIT_MS);
    try {
      await this.#input.write(new TextEncoder().encode(`${command}\n.print ${end}\n`));
      const all: string[] = [];
      for (;;) {
        const { value, done } = await this.#lines.next();
        if (done) throw new Error(`sqlite3 has ended: ${command}`);
        if (value === end) break;
        all.push(value);
      }
      const errors = all.filter((line) => /^(Error|Runtime error|Parse error)/.test(line));
      return { lines: all.filter((line) => !errors.includes(line)), errors };
    } finally {
      clearTimeout(timer);
    }
  }

  /** For what must work. */
  async must(command: string): Promise<readonly string[]> {
    const { lines, errors } = await this.run(command);
    if (errors.length > 0) throw new Error(`${command}: ${errors.join("; ")}`);
    return lines;
  }

  /** In a word that the operating system has the last say on: nothing is rolled back, no lock given back in order. */
  async kill(): Promise<void> {
    this.#kill();
    await this.#child.status;
    await this.#input.abort().catch(() => {});
    await this.#lines.return?.();
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // it has ended
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
