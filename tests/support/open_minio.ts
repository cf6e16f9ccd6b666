/** A real MinIO whose one bucket anybody on loopback may use unsigned: conditional writes with nothing else in between. */

import { AwsClient } from "aws4fetch";

export interface OpenMinio {
  /** Of the bucket: objects are `<url>/<key>`. */
  readonly url: string;
  stop(): Promise<void>;
}

const PROGRAM = new URL("../../.cache/tools/minio", import.meta.url).pathname;
const BUCKET = "lease";
/** Starting takes about a second; on a busy machine some more. */
const START_LIMIT_MS = 20_000;

/** Null where the program is not at hand. */
export async function startOpenMinio(): Promise<OpenMinio | null> {
  if (await Deno.stat(PROGRAM).catch(() => null) === null) return null;
  const folder = await Deno.makeTempDir({ prefix: "state-manager-minio-" });
  const port = freePort();
  const child = new Deno.Command(PROGRAM, {
    args: [
      "server",
      "--quiet",
      "--address",
      `127.0.0.1:${port}`,
      "--console-address",
      `127.0.0.1:${freePort()}`,
      folder,
    ],
    env: { MINIO_ROOT_USER: "tester", MINIO_ROOT_PASSWORD: "tester-secret", HOME: folder },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const stop = async () => {
    child.kill("SIGTERM");
    await child.status;
    await Deno.remove(folder, { recursive: true });
  };
  try {
    const url = `http://127.0.0.1:${port}/${BUCKET}`;
    await openBucket(url);
    return { url, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

async function openBucket(url: string): Promise<void> {
  const client = new AwsClient({
    accessKeyId: "tester",
    secretAccessKey: "tester-secret",
    service: "s3",
    region: "us-east-1",
    retries: 0,
  });
  const policy = JSON.stringify({
    Version: "2012-10-17",
    Statement: [{
      Effect: "Allow",
      Principal: { AWS: ["*"] },
      Action: ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
      Resource: [`arn:aws:s3:::${BUCKET}`, `arn:aws:s3:::${BUCKET}/*`],
    }],
  });
  const limit = AbortSignal.timeout(START_LIMIT_MS);
  const put = async (address: string, body?: string): Promise<boolean> => {
    try {
      const response = await client.fetch(address, {
        method: "PUT",
        ...(body === undefined ? {} : { body }),
      });
      await response.body?.cancel();
      return response.ok || response.status === 409; // 409: the bucket is there already
    } catch {
      return false; // not listening yet
    }
  };
  while (!(await put(url) && await put(`${url}?policy`, policy))) {
    if (limit.aborted) throw new Error(`start MinIO: not usable within ${START_LIMIT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
