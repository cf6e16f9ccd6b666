/** The real `litestream replicate` beside a database that a test writes, with quick intervals, into a replica of its own. */

import { findLitestream } from "./litestream.ts";
import { lineReader } from "./line_chunks.ts";
import type { Minio } from "./minio.ts";

/** It ends within a second; on a busy machine some more. */
const STOP_LIMIT_MS = 60_000;

export interface LitestreamSource {
  readonly database: string;
  /** A folder for its configuration. */
  readonly folder: string;
  /** Folder of a file replica, or a path in the bucket of a MinIO. */
  readonly replica: { readonly folder: string } | { readonly minio: Minio; readonly path: string };
}

export interface LitestreamConfig {
  readonly path: string;
  /** Of the database, as `litestream restore` wants it with this configuration. */
  readonly database: string;
}

/** Writes the configuration; `restore -config` reads it as well. JSON is YAML. */
export function litestreamConfig(source: LitestreamSource): LitestreamConfig {
  const { replica } = source;
  const place = "folder" in replica ? { type: "file", path: replica.folder } : {
    type: "s3",
    bucket: replica.minio.bucket,
    path: replica.path,
    endpoint: replica.minio.endpoint,
    region: "us-east-1",
    "access-key-id": replica.minio.accessKey,
    "secret-access-key": replica.minio.secretKey,
    "force-path-style": true,
  };
  const config = {
    levels: [{ interval: "1s" }, { interval: "3s" }],
    snapshot: { interval: "4s", retention: "1h" },
    dbs: [{
      path: source.database,
      "monitor-interval": "20ms",
      replica: { ...place, "sync-interval": "50ms" },
    }],
  };
  const path = `${source.folder}/litestream.yml`;
  Deno.writeTextFileSync(path, JSON.stringify(config));
  return { path, database: source.database };
}

export interface RunningLitestream extends AsyncDisposable {
  /** What it has logged, line by line. */
  readonly log: readonly string[];
  /** Lets it send what is left, and waits for its end. */
  stop(): Promise<void>;
}

export function startLitestream(config: LitestreamConfig): RunningLitestream {
  const program = findLitestream();
  if (program === null) throw new Error("start Litestream: not found");
  const child = new Deno.Command(program, {
    args: ["replicate", "-config", config.path],
    clearEnv: true, // it refuses to start with some variables set
    env: { HOME: "/nonexistent" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const log: string[] = [];
  const read = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    for await (const line of lineReader(stream)) log.push(line);
  };
  const logged = Promise.all([read(child.stdout), read(child.stderr)]);
  let ended = false;
  const status = child.status.then((result) => {
    ended = true;
    return result;
  });
  const stop = async () => {
    if (!ended) child.kill("SIGINT");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_LIMIT_MS);
    const { code, signal } = await status;
    clearTimeout(timer);
    await logged;
    if (signal !== null || code !== 0) throw new Error(`litestream replicate ended with ${signal ?? code}`);
  };
  return {
    log,
    stop,
    async [Symbol.asyncDispose]() {
      if (!ended) await stop();
    },
  };
}
