/** What this process knows of itself, and the last net under it. */

import { DatabaseSync } from "node:sqlite";

/** For people, in the lease's record. */
export function machineName(): string {
  try {
    return Deno.hostname();
  } catch {
    return "unknown";
  }
}

/**
 * A promise that nobody awaited, or a throw out of a listener, must never end PID 1: `handler` tells it, and the
 * process goes on. Whatever failed has its own deadline and its own way back.
 */
export function keepAliveOnErrors(handler: (error: unknown) => void): void {
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    handler(event.reason);
  });
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    handler(event.error);
  });
}

/**
 * The SQLite that takes databases into checkpoints, when it is one of those that can corrupt a WAL database at a
 * restart of the log (3.7.0 to 3.51.2; fixed in 3.51.3, 3.50.7 and 3.44.6), else null. Reading
 * does not trigger it; a program that uses the same SQLite can.
 */
export function affectedSqlite(): string | null {
  const database = new DatabaseSync(":memory:");
  const row = database.prepare("SELECT sqlite_version() AS version").get();
  database.close();
  const version = String(row?.["version"]);
  const [major = 0, minor = 0, patch = 0] = version.split(".").map(Number);
  const fixed = major > 3 || minor > 51 || (minor === 51 && patch >= 3) || (minor === 50 && patch >= 7) ||
    (minor === 44 && patch >= 6);
  return fixed ? null : version;
}
