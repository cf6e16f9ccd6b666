/** A manager's side of following: a data folder, a store, real follower children, programs that write, and restores. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { FollowLink, type FollowLinkOptions } from "../../src/database/follow_client.ts";
import type { FollowedDatabase, FollowEvent } from "../../src/database/follow_protocol.ts";
import { restoreDatabaseTo } from "../../src/database/restore_database.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { log } from "../../src/platform/log.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { type ObjectStore, openStore, type OpenStoreOptions } from "../../src/storage/mod.ts";
import { DatabaseProgram } from "./database_program.ts";
import { litestream } from "./litestream.ts";
import type { Minio } from "./minio.ts";
import { scratchFolder } from "./tree_model.ts";
import { minioOptions } from "./minio.ts";

const clock = systemClock();
const HOUR_MS = 3_600_000;

let prefixes = 0;

/** A prefix of its own in MinIO, reached by `endpoint` (the service's own, or a proxy's). */
export function bucketStore(minio: Minio, endpoint = minio.endpoint): OpenStoreOptions {
  return minioOptions({ ...minio, endpoint }, `follow/${Deno.pid}-${++prefixes}`);
}

export class FollowScene implements AsyncDisposable {
  readonly folder: string;
  readonly events: FollowEvent[] = [];
  readonly fenced: StateManagerError[] = [];
  readonly pids: number[] = [];
  readonly program: DatabaseProgram;
  readonly store: ObjectStore;
  readonly #settings: OpenStoreOptions;
  readonly #scratch: AsyncDisposable & { readonly path: string };
  readonly #links: FollowLink[] = [];
  #restores = 0;

  private constructor(
    settings: OpenStoreOptions | null,
    scratch: AsyncDisposable & { readonly path: string },
    program: DatabaseProgram,
  ) {
    this.#scratch = scratch;
    this.folder = scratch.path;
    this.program = program;
    this.#settings = settings ?? { kind: "directory", directory: `${this.folder}/store` };
    this.store = openStore(this.#settings, { clock, random: systemRandom() });
    for (const name of ["app", "data", "store"]) Deno.mkdirSync(`${this.folder}/${name}`);
  }

  /** `settings` null: a folder store below. */
  static async make(settings: OpenStoreOptions | null = null): Promise<FollowScene> {
    return new FollowScene(settings, scratchFolder("follow-"), await DatabaseProgram.start());
  }

  database(name: string, more: Partial<FollowedDatabase> = {}): FollowedDatabase {
    return {
      name,
      path: `${this.folder}/app/${name}`,
      journal: "follow",
      syncIntervalMs: 200,
      snapshotIntervalMs: 24 * HOUR_MS,
      retentionMs: 24 * HOUR_MS,
      baseline: null,
      pins: [],
      ...more,
    };
  }

  /** With a lease for an hour, unless `deadlineMs` says otherwise. */
  link(databases: readonly FollowedDatabase[], more: Partial<FollowLinkOptions> = {}): FollowLink {
    const link = new FollowLink({
      store: this.#settings,
      token: 1,
      dataFolder: `${this.folder}/data`,
      databases,
      clock,
      log: log("test"),
      onFenced: (error) => this.fenced.push(error),
      onEvent: (event) => this.events.push(event),
      watchChild: () => ({ env: {}, started: (pid) => this.pids.push(pid), gone: () => {} }),
      ...more,
    });
    this.#links.push(link);
    link.start();
    link.deadline(clock.monotonicMs() + HOUR_MS);
    return link;
  }

  /** Opens a database with a table `log(n, text)` on a connection of the same name. */
  async open(name: string, journal: "WAL" | "DELETE" = "WAL"): Promise<void> {
    const path = `${this.folder}/app/${name}`;
    const sql =
      `PRAGMA journal_mode=${journal}; CREATE TABLE IF NOT EXISTS log(n INTEGER PRIMARY KEY, text TEXT)`;
    await this.program.open(name, path, sql);
  }

  /** Rows `from` to `to`, each a transaction of its own. */
  async write(name: string, from: number, to: number, bytes = 100): Promise<void> {
    for (let n = from; n <= to; n++) {
      await this.program.run(name, `INSERT INTO log VALUES(${n}, '${n}:' || hex(randomblob(${bytes})))`);
    }
  }

  /** Kills the newest child, if it lives then. */
  async killAfter(ms: number): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, ms));
    try {
      Deno.kill(this.pids.at(-1) ?? 0, "SIGKILL");
    } catch {
      // It was killed before, and the next one is not there yet.
    }
  }

  /** What a restore of the newest state has: it must be whole, and rows 1 to the number given back. */
  async restoredRows(name: string): Promise<number> {
    const file = `${this.folder}/restored-${++this.#restores}.db`;
    const layout = this.#settings.kind === "directory" ? "folder" : "bucket";
    await restoreDatabaseTo({
      place: { layout, name },
      target: { kind: "newest" },
      file,
      owner: null,
      mode: 0o600,
      check: "full",
    }, { store: this.store, clock, signal: new AbortController().signal });
    return countRows(file);
  }

  /** The same by the real Litestream. */
  async litestreamRows(name: string): Promise<number> {
    const file = `${this.folder}/litestream-${++this.#restores}.db`;
    const config = `${this.folder}/litestream.yml`;
    await Deno.writeTextFile(config, this.#litestreamConfig(name, file));
    const { code, text } = await litestream("restore", "-config", config, file);
    assert.equal(code, 0, text);
    return countRows(file);
  }

  #litestreamConfig(name: string, file: string): string {
    const settings = this.#settings;
    const replica = settings.kind === "directory"
      ? { type: "file", path: `${settings.directory}/databases/${name}` }
      : {
        type: "s3",
        bucket: settings.bucket,
        path: `${settings.keyPrefix}/databases/${name}`,
        endpoint: settings.endpoint,
        region: settings.region,
        "force-path-style": true,
        "access-key-id": settings.credentials().accessKey.reveal(),
        "secret-access-key": settings.credentials().secretKey.reveal(),
      };
    // JSON is YAML.
    return JSON.stringify({ dbs: [{ path: file, replica }] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const link of this.#links) await link.close();
    await this.program[Symbol.asyncDispose]();
    await this.store.close();
    await this.#scratch[Symbol.asyncDispose]();
  }
}

function countRows(file: string): number {
  const database = new DatabaseSync(file);
  try {
    const row = database.prepare("SELECT count(*) AS rows, coalesce(max(n), 0) AS last FROM log").get();
    assert.equal(row?.["rows"], row?.["last"], "rows are a prefix of what was written");
    const text = database.prepare("SELECT count(*) AS bad FROM log WHERE text NOT LIKE n || ':%'").get();
    assert.equal(text?.["bad"], 0);
    return Number(row?.["rows"]);
  } finally {
    database.close();
  }
}
