/** An application with databases: a process of its own that runs SQL as told, on as many connections as wanted. */

import { lineReader } from "./line_chunks.ts";

const SCRIPT = `
import { DatabaseSync } from "node:sqlite";
const connections = new Map();
const { lineReader } = await import(Deno.args[0]);
for await (const line of lineReader(Deno.stdin.readable)) {
  const { connection, path, sql, close } = JSON.parse(line);
  let reply;
  try {
    if (path !== undefined) connections.set(connection, new DatabaseSync(path));
    if (close) {
      connections.get(connection).close();
      connections.delete(connection);
    }
    const database = connections.get(connection);
    reply = { rows: [] };
    if (sql !== undefined) {
      if (/^\\s*(SELECT|PRAGMA)/i.test(sql) && !sql.includes(";")) reply.rows = database.prepare(sql).all();
      else database.exec(sql);
    }
  } catch (error) {
    reply = { error: String(error.message) };
  }
  Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(reply) + "\\n"));
}`;

export type Row = Readonly<Record<string, unknown>>;

export class DatabaseProgram implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #replies: AsyncIterator<string>;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#replies = lineReader(child.stdout)[Symbol.asyncIterator]();
  }

  static async start(): Promise<DatabaseProgram> {
    const script = await Deno.makeTempFile({ prefix: "database-program-", suffix: ".ts" });
    await Deno.writeTextFile(script, SCRIPT);
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-config", "--quiet", script, new URL("line_chunks.ts", import.meta.url).href],
      stdin: "piped",
      stdout: "piped",
      env: { NO_COLOR: "1" },
    }).spawn();
    const program = new DatabaseProgram(child);
    await program.#ask({ connection: "none" });
    await Deno.remove(script);
    return program;
  }

  async #ask(request: Readonly<Record<string, unknown>>): Promise<readonly Row[]> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(request) + "\n"));
    const { value, done } = await this.#replies.next();
    if (done) throw new Error("the program has ended");
    const reply: { rows?: Row[]; error?: string } = JSON.parse(value);
    if (reply.error !== undefined) throw new Error(reply.error);
    return reply.rows ?? [];
  }

  async open(connection: string, path: string, sql = ""): Promise<void> {
    await this.#ask({ connection, path, sql: `PRAGMA busy_timeout=2000;${sql}` });
  }

  /** One SELECT or PRAGMA without ";" gives rows; anything else gives none. Throws what SQLite says. */
  async run(connection: string, sql: string): Promise<readonly Row[]> {
    return await this.#ask({ connection, sql });
  }

  async close(connection: string): Promise<void> {
    await this.#ask({ connection, close: true });
  }

  async kill(): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // it has ended
    }
    await this.#child.status;
    await this.#input.abort().catch(() => {});
    await this.#replies.return?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
