/** Who makes and restores checkpoints: State Manager by its running manager, restic, and borg where it can. */

import type { Minio } from "../tests/support/minio.ts";
import { Manager, output, programCommand, runMeasured } from "./programs.ts";
import { watched } from "./process_memory.ts";

export interface Place {
  /** A folder of its own. */
  readonly home: string;
  readonly data: string;
  /** Null: the store is a folder. */
  readonly minio: Minio | null;
}

export interface Step {
  readonly ms: number;
  /** Largest memory of all processes that do the work. */
  readonly memoryBytes: number;
}

export interface Subject {
  readonly name: string;
  version(): Promise<string | null>;
  /** Ready to take checkpoints of `data`, which exists. */
  open(place: Place): Promise<Open>;
}

export interface Open extends AsyncDisposable {
  checkpoint(): Promise<Step>;
  restore(to: string): Promise<Step>;
  /** What the store holds. */
  storedBytes(): Promise<number>;
  /** Of the manager that stands by; null where there is none. */
  readonly standingBytes: number | null;
}

async function folderBytes(path: string): Promise<number> {
  return Number((await output(["du", "-sb", path])).split("\t")[0]);
}

const BUCKET_LISTING = /<Size>(\d+)<\/Size>/g;

/** Sizes of all objects below a prefix, by MinIO's own listing of its folder. */
async function bucketBytes(minio: Minio, prefix: string): Promise<number> {
  const { AwsClient } = await import("aws4fetch");
  const client = new AwsClient({
    accessKeyId: minio.accessKey,
    secretAccessKey: minio.secretKey,
    service: "s3",
  });
  let sum = 0;
  for (let after = "";;) {
    const url = `${minio.endpoint}/${minio.bucket}?list-type=2&prefix=${prefix}&start-after=${after}`;
    const body = await (await client.fetch(url)).text();
    for (const match of body.matchAll(BUCKET_LISTING)) sum += Number(match[1]);
    const keys = [...body.matchAll(/<Key>([^<]+)<\/Key>/g)].map((match) => match[1] ?? "");
    if (!body.includes("<IsTruncated>true</IsTruncated>")) return sum;
    after = encodeURIComponent(keys.at(-1) ?? "");
  }
}

function minioEnv(minio: Minio | null): Record<string, string> {
  return minio === null ? {} : { AWS_ACCESS_KEY_ID: minio.accessKey, AWS_SECRET_ACCESS_KEY: minio.secretKey };
}

let runs = 0;

/** Our archiver stands back behind other programs: so must they, or a busy machine would be busy for us alone. */
const STANDING_BACK = ["nice", "-n", "15", "ionice", "-c", "2", "-n", "7"];

export const ours = stateManager("ours", false);
/** As the others do it. */
export const encrypted = stateManager("encrypted", true);

function stateManager(name: string, isEncrypted: boolean): Subject {
  return {
    name,
    version: () => output(programCommand(["version"])),
    open: (place) => openOurs(place, isEncrypted),
  };
}

async function openOurs({ home, data, minio }: Place, isEncrypted: boolean): Promise<Open> {
  const prefix = `ours-${++runs}`;
  const key = `${home}/key`;
  if (isEncrypted) {
    await Deno.mkdir(home, { recursive: true });
    await Deno.writeFile(key, crypto.getRandomValues(new Uint8Array(32)));
  }
  const place = minio === null
    ? ["--directory", `${home}/store`]
    : ["--bucket", minio.bucket, "--endpoint", minio.endpoint, "--region", "us-east-1", "--prefix", prefix];
  const store = isEncrypted ? [...place, "--encryption-key-file", key] : place;
  const env = minioEnv(minio);
  const manager = await Manager.start(home, data, { store, env });
  let standingBytes = 0;
  let isRunning = true;
  const stop = async () => {
    if (isRunning) await manager.stop();
    isRunning = false;
  };
  return {
    get standingBytes() {
      return standingBytes;
    },
    async checkpoint() {
      const begin = performance.now();
      const { memory } = await watched(manager.pid, () => manager.checkpoint());
      standingBytes = Math.max(standingBytes, memory.own);
      return { ms: performance.now() - begin, memoryBytes: memory.below };
    },
    async restore(to) {
      await stop();
      return await runMeasured(programCommand(["restore", ...store, "--to", to, "--yes"]), env);
    },
    storedBytes: () => minio === null ? folderBytes(`${home}/store`) : bucketBytes(minio, prefix),
    [Symbol.asyncDispose]: stop,
  };
}

export const restic: Subject = {
  name: "restic",
  version: () => output(["restic", "version"]).then((text) => text.split(" ")[1] ?? "?", () => null),
  async open({ home, data, minio }) {
    const prefix = `restic-${++runs}`;
    const env = {
      ...minioEnv(minio),
      RESTIC_REPOSITORY: minio === null ? `${home}/store` : `s3:${minio.endpoint}/${minio.bucket}/${prefix}`,
      RESTIC_PASSWORD: "bench",
      RESTIC_CACHE_DIR: `${home}/cache`,
    };
    const run = (...args: string[]) => runMeasured(["restic", "--quiet", ...args], env);
    const runBehind = (...args: string[]) =>
      runMeasured([...STANDING_BACK, "restic", "--quiet", ...args], env);
    await Deno.mkdir(home, { recursive: true });
    await run("init");
    return {
      standingBytes: null,
      checkpoint: () => runBehind("backup", data),
      restore: (to) => run("restore", "latest", "--target", to),
      storedBytes: () => minio === null ? folderBytes(`${home}/store`) : bucketBytes(minio, prefix),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  },
};

export const borg: Subject = {
  name: "borg",
  version: () => output(["borg", "--version"]).then((text) => text.split(" ")[1] ?? "?", () => null),
  async open({ home, data }) {
    const env = {
      BORG_REPO: `${home}/store`,
      BORG_PASSPHRASE: "bench",
      BORG_BASE_DIR: `${home}/base`,
      BORG_RELOCATED_REPO_ACCESS_IS_OK: "yes",
    };
    await Deno.mkdir(home, { recursive: true });
    await runMeasured(["borg", "init", "--encryption", "repokey-blake2"], env);
    let n = 0;
    return {
      standingBytes: null,
      checkpoint() {
        const create = ["borg", "create", "--compression", "zstd,1", `::${++n}`, data];
        return runMeasured([...STANDING_BACK, ...create], env);
      },
      async restore(to) {
        await Deno.mkdir(to, { recursive: true });
        return await runMeasured(["borg", "extract", `::${n}`], env, to);
      },
      storedBytes: () => folderBytes(`${home}/store`),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  },
};
