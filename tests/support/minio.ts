/** A real MinIO with one bucket, on free ports of loopback and a folder of its own. */

import { AwsClient } from "aws4fetch";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import {
  credentialsFromWire,
  type ObjectStore,
  openStore,
  type OpenStoreOptions,
  withOperations,
} from "../../src/storage/mod.ts";
import { findTool } from "./find_tool.ts";
import { freePort } from "./free_port.ts";

export interface Minio {
  readonly endpoint: string;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly bucket: string;
  stop(): Promise<void>;
}

const ACCESS_KEY = "test-access-key";
const SECRET_KEY = "test-secret-key";
const BUCKET = "state-manager-test";
/** Starting takes about a second; on a busy machine some more. */
const START_LIMIT_MS = 60_000;
const POLL_MS = 50;

/** STATE_MANAGER_TEST_MINIO, else the project's own copy, else PATH; null where there is none. */
export function findMinio(): string | null {
  return findTool("minio");
}

/** Its bucket, as the product's settings say it; `endpoint` may be that of a proxy before it. */
export function minioOptions(
  { bucket, endpoint, accessKey, secretKey }: Omit<Minio, "stop">,
  keyPrefix = "",
): OpenStoreOptions {
  const credentials = credentialsFromWire({ accessKey, secretKey, sessionToken: null });
  return {
    kind: "s3",
    bucket,
    endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: () => credentials,
    keyPrefix,
  };
}

/** Its bucket, as the product opens it, but for its clock: tests move their own one. The caller closes it. */
export function minioStore(minio: Omit<Minio, "stop">, keyPrefix = ""): ObjectStore {
  const store = openStore(minioOptions(minio, keyPrefix), { clock: systemClock(), random: systemRandom() });
  return withOperations(store, { clockMs: () => null });
}

/** Whoever asks without a signature may do all with the bucket: for those whose clock is not the service's. */
export async function openToAll({ endpoint, bucket, accessKey, secretKey }: Minio): Promise<void> {
  const statement = (resource: string, ...actions: string[]) => ({
    Effect: "Allow",
    Principal: { AWS: ["*"] },
    Action: actions.map((action) => `s3:${action}`),
    Resource: [`arn:aws:s3:::${resource}`],
  });
  const client = new AwsClient({
    accessKeyId: accessKey,
    secretAccessKey: secretKey,
    region: "us-east-1",
    service: "s3",
  });
  const response = await client.fetch(`${endpoint}/${bucket}?policy`, {
    method: "PUT",
    body: JSON.stringify({
      Version: "2012-10-17",
      Statement: [
        statement(bucket, "ListBucket", "ListBucketMultipartUploads"),
        statement(`${bucket}/*`, "GetObject", "PutObject", "DeleteObject"),
        statement(`${bucket}/*`, "AbortMultipartUpload", "ListMultipartUploadParts"),
      ],
    }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`open the bucket to all: ${response.status} ${text}`);
}

/** Null where the program is not at hand. */
export async function startMinio(): Promise<Minio | null> {
  const program = findMinio();
  if (program === null) return null;
  const folder = await Deno.makeTempDir({ prefix: "state-manager-minio-" });
  await Deno.mkdir(`${folder}/data/${BUCKET}`, { recursive: true });
  const endpoint = `http://127.0.0.1:${freePort()}`;
  const child = new Deno.Command(program, {
    args: [
      "server",
      "--quiet",
      "--address",
      new URL(endpoint).host,
      "--console-address",
      `127.0.0.1:${freePort()}`,
      `${folder}/data`,
    ],
    clearEnv: true,
    env: {
      MINIO_ROOT_USER: ACCESS_KEY,
      MINIO_ROOT_PASSWORD: SECRET_KEY,
      MINIO_BROWSER: "off",
      MINIO_UPDATE: "off",
      HOME: folder,
    },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let ended = false;
  const status = child.status.then(() => void (ended = true));
  const stop = async () => {
    if (!ended) child.kill("SIGTERM");
    await status;
    await Deno.remove(folder, { recursive: true });
  };
  try {
    await waitUntilReady(endpoint, () => ended);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    endpoint,
    accessKey: ACCESS_KEY,
    secretKey: SECRET_KEY,
    bucket: BUCKET,
    stop,
  };
}

async function waitUntilReady(
  endpoint: string,
  hasEnded: () => boolean,
): Promise<void> {
  const end = performance.now() + START_LIMIT_MS;
  for (;;) {
    if (hasEnded()) throw new Error("start MinIO: it ended by itself");
    try {
      const response = await fetch(`${endpoint}/minio/health/cluster`);
      await response.body?.cancel();
      if (response.status === 200) return;
    } catch {
      // Not listening yet.
    }
    if (performance.now() > end) {
      throw new Error(`start MinIO: not ready within ${START_LIMIT_MS} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
