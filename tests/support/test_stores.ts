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

let prefixCount = 0;

const minio: TestStoreKind = {
  name: "MinIO [needs minio]",
  async run(body) {
    const server = await startMinio();
    if (server === null) {
      throw new Error("MinIO was found before and does not start now");
    }
    try {
      const prefix = `e2e/run-${Deno.pid}-${++prefixCount}`;
      await body({
        args: [
          "--bucket",
          server.bucket,
          "--endpoint",
          server.endpoint,
          "--region",
          "us-east-1",
          "--prefix",
          prefix,
        ],
        env: {
          AWS_ACCESS_KEY_ID: server.accessKey,
          AWS_SECRET_ACCESS_KEY: server.secretKey,
        },
        config: {
          bucket: server.bucket,
          endpoint: server.endpoint,
          region: "us-east-1",
          access_key: server.accessKey,
          secret_key: server.secretKey,
          key_prefix: prefix,
        },
      });
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
