/** A repository in a folder store with two checkpoints of one small tree, made by the real archiver. */

import { Archiver, openRepository, plainCipher } from "../../src/checkpoint/mod.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom, ulid } from "../../src/platform/random.ts";
import { openStore } from "../../src/storage/mod.ts";
import { takeOverHead } from "./take_over_head.ts";

const clock = systemClock();
const random = systemRandom();

export interface SmallRepository extends AsyncDisposable {
  /** Scratch folder of all of it. */
  readonly path: string;
  /** The store. */
  readonly directory: string;
  readonly keyPrefix: string;
  readonly ids: readonly [string, string];
}

/** First checkpoint: `a` holds "one". Second: `a` holds "two", and there is `sub/b`. */
export async function smallRepository(): Promise<SmallRepository> {
  const path = await Deno.makeTempDir({ prefix: "sm-repository-" });
  const [directory, keyPrefix] = [`${path}/store`, "shop"];
  const files = `${path}/files`;
  const dir = { cache: `${path}/cache`, scratch: `${path}/scratch` };
  for (const each of [files, dir.cache, dir.scratch]) await Deno.mkdir(each);
  const settings = { kind: "directory", directory, keyPrefix } as const;
  const store = openStore(settings, { clock, random });
  const archiver = new Archiver({ store: settings, cipher: plainCipher, dir, clock });
  const repo = await openRepository(store, { name: "shop", random });
  const session = await takeOverHead(store, { repo, token: 1, assertHeld: () => {} });
  const checkpoint = async (comment: string): Promise<string> => {
    const id = ulid(clock.wallMs(), random);
    const { record, indexes } = await archiver.create({
      id,
      kind: "request",
      time: clock.wallMs(),
      comment,
      labels: {},
      token: 1,
      head: session.head,
      roots: [{ name: "app", path: files, excludePaths: [], exclude: [], includeDatabases: true }],
      always: true,
    });
    if (record === null) throw new Error("a checkpoint was expected");
    await session.commit((head) => ({
      ...head,
      checkpoints: [...head.checkpoints, record],
      indexes,
      current: record.id,
    }));
    return id;
  };
  await Deno.writeTextFile(`${files}/a`, "one");
  const first = await checkpoint("first");
  await Deno.writeTextFile(`${files}/a`, "two");
  await Deno.mkdir(`${files}/sub`);
  await Deno.writeTextFile(`${files}/sub/b`, "new");
  const second = await checkpoint("second");
  await archiver.close();
  await store.close();
  const remove = () => Deno.remove(path, { recursive: true });
  return { path, directory, keyPrefix, ids: [first, second], [Symbol.asyncDispose]: remove };
}
