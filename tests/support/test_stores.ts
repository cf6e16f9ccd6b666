/** The stores that end-to-end tests run on: the embedded folder store and, where the program is at hand, MinIO. */

import type { OpenStoreOptions } from "../../src/storage/mod.ts";
import { minioOptions, startMinio } from "./minio.ts";
import { ManagerProcess } from "./manager_process.ts";

/** One fresh, empty repository place. */
export interface TestStore {
  /** Command line options that name it. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** The `storage` part of a configuration file. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** The same, as the product's settings say it. */
export function storeOptionsOf({ config }: TestStore): OpenStoreOptions {
  const text = (name: string) => String(config[name] ?? "");
  if (config["directory"] !== undefined) return { kind: "directory", directory: text("directory") };
  const [bucket, endpoint] = [text("bucket"), text("endpoint")];
  const keys = { accessKey: text("access_key"), secretKey: text("secret_key") };
  return minioOptions({ bucket, endpoint, ...keys }, text("key_prefix"));
}

export interface TestStoreKind {
  readonly name: string;
  /** Runs `body` with a fresh store; everything it needs is gone afterwards. */
  run(body: (store: TestStore) => Promise<void>): Promise<void>;
}

const folder: TestStoreKind = {
  name: "folder store",
  async run(body) {
    const path = await Deno.makeTempDir({ prefix: "state-manager-store-" });
    try {
      await Deno.chmod(path, 0o777);
      await body({
        args: ["--directory", path],
        env: {},
        config: { directory: path },
      });
    } finally {
      await Deno.remove(path, { recursive: true });
    }
  },
};

/** The bucket of `server`, below `prefix` where one is given. */
export function storeOnService(
  server: {
    readonly bucket: string;
    readonly endpoint: string;
    readonly accessKey: string;
    readonly secretKey: string;
  },
  prefix?: string,
): TestStore {
  const { bucket, endpoint, accessKey, secretKey } = server;
  const region = "us-east-1";
  return {
    args: [
      ...["--bucket", bucket, "--endpoint", endpoint, "--region", region],
      ...(prefix === undefined ? [] : ["--prefix", prefix]),
    ],
    env: { AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey },
    config: {
      ...{ bucket, endpoint, region, access_key: accessKey, secret_key: secretKey },
      ...(prefix === undefined ? {} : { key_prefix: prefix }),
    },
  };
}

let prefixCount = 0;

const minio: TestStoreKind = {
  name: "MinIO [needs minio]",
  async run(body) {
    const server = await startMinio();
    if (server === null) {
      throw new Error("MinIO was found before and does not start now");
    }
    try {
      await body(storeOnService(server, `e2e/run-${Deno.pid}-${++prefixCount}`));
    } finally {
      await server.stop();
    }
  },
};

const hasMinio = await (async () => {
  const server = await startMinio();
  await server?.stop();
  return server !== null;
})();

/** Registers one test per kind of store. */
export function testOnStores(
  name: string,
  body: (store: TestStore) => Promise<void>,
  ignore = false,
): void {
  for (const kind of [folder, minio]) {
    Deno.test({
      name: `${name}, on ${kind.name}`,
      ignore: ignore || (kind === minio && !hasMinio),
      fn: () => kind.run(body),
    });
  }
}

export { ManagerProcess };
