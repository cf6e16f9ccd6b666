/** The real Litestream, as the oracle of its own format: one run per call, bounded in time. */

import { findTool } from "./find_tool.ts";

/** A run takes milliseconds; on a busy machine some seconds. */
const RUN_LIMIT_MS = 60_000;

/** STATE_MANAGER_TEST_LITESTREAM, else the project's own copy, else PATH; null where there is none. */
export function findLitestream(): string | null {
  return findTool("litestream");
}

export interface LitestreamRun {
  readonly code: number;
  /** Standard output and error. */
  readonly text: string;
}

/** Runs Litestream with `args` to its end. The environment is empty: it refuses to start with some variables set. */
export async function litestream(...args: string[]): Promise<LitestreamRun> {
  const program = findLitestream();
  if (program === null) throw new Error("run Litestream: not found");
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args,
    clearEnv: true,
    env: { HOME: "/nonexistent" },
    stdin: "null",
    signal: AbortSignal.timeout(RUN_LIMIT_MS),
  }).output();
  const decoder = new TextDecoder();
  return { code, text: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** Restores the replica in `folder` to `target`; throws with what Litestream said where it fails. */
export async function litestreamRestore(folder: string, target: string, ...flags: string[]): Promise<void> {
  const { code, text } = await litestream("restore", ...flags, "-o", target, `file://${folder}`);
  if (code !== 0) throw new Error(`litestream restore: exit code ${code}: ${text}`);
}

/** Restores a database out of one of our repositories; `storage` is that part of a configuration file. */
export async function litestreamRestoreOf(
  storage: Readonly<Record<string, unknown>>,
  name: string,
  target: string,
  ...flags: string[]
): Promise<void> {
  const { directory, bucket, key_prefix: prefix, endpoint, region, access_key, secret_key } = storage;
  if (directory !== undefined) {
    return await litestreamRestore(`${directory}/databases/${name}`, target, ...flags);
  }
  const replica = {
    type: "s3",
    bucket,
    path: `${prefix}/databases/${name}`,
    endpoint,
    region,
    "force-path-style": true,
    "access-key-id": access_key,
    "secret-access-key": secret_key,
  };
  const never = `${target}.never`;
  const config = `${target}.litestream.yml`;
  await Deno.writeTextFile(config, JSON.stringify({ dbs: [{ path: never, replica }] })); // JSON is YAML
  const { code, text } = await litestream("restore", "-config", config, ...flags, "-o", target, never);
  if (code !== 0) throw new Error(`litestream restore: exit code ${code}: ${text}`);
}
