/** One attempt of a put to be the next version of its object: what it writes, in which order, before it competes. */

import type { CreateOptions } from "../platform/local_files.ts";
import { type Random, randomHex } from "../platform/random.ts";
import { removeStoreEntry, type StoreFileInfo } from "../platform/store_files.ts";
import { encodeHeader, metadataPath, plainTag } from "./folder_layout.ts";
import { type Advance, advance, advanceFromNothing, type Version } from "./folder_object.ts";
import type { FolderTree } from "./folder_tree.ts";
import type { ETag } from "./object_store.ts";

export interface Written {
  readonly outcome: Advance;
  readonly etag: ETag;
}

type Bytes = Uint8Array<ArrayBuffer>;
type Body = readonly Bytes[] | AsyncIterable<Bytes>;

async function* headed(header: Bytes, body: Body): AsyncGenerator<Bytes, void, void> {
  yield header;
  yield* body;
}

export class FolderWrite {
  readonly #tree: FolderTree;
  readonly #random: Random;
  readonly #path: string;
  readonly #metadata: Readonly<Record<string, string>>;
  readonly #signal: AbortSignal;

  constructor(
    tree: FolderTree,
    random: Random,
    path: string,
    metadata: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ) {
    this.#tree = tree;
    this.#random = random;
    this.#path = path;
    this.#metadata = metadata;
    this.#signal = signal;
  }

  /** Generation `next`, after `version`. */
  async replace(version: Version, next: number, body: Body): Promise<Written> {
    const tag = randomHex(this.#random);
    const header = encodeHeader({
      tag,
      after: version.present ? version.etag : null,
      deleted: false,
      metadata: this.#metadata,
    });
    const outcome = await this.#tree.withTemporary(
      headed(header, body),
      this.#signal,
      (temporary) => advance(this.#tree, this.#path, version, next, tag, temporary),
    );
    return { outcome, etag: tag };
  }

  /** A plain file in place of nothing. */
  async create(body: Body, how: CreateOptions = {}): Promise<Written> {
    await this.#tree.ensureParent(this.#path);
    return await this.#tree.withTemporary(
      body,
      this.#signal,
      (temporary, info) => this.createFrom(temporary, info),
      how,
    );
  }

  /** The same of a file that is written and synced already. */
  async createFrom(temporary: string, info: StoreFileInfo): Promise<Written> {
    const tree = this.#tree;
    await tree.ensureParent(this.#path);
    // First the metadata, under a name that only this very file makes valid: if we die in between, it means nothing.
    const sidecar = metadataPath(this.#path, info);
    const described = Object.keys(this.#metadata).length > 0;
    if (described) {
      const bytes = new TextEncoder().encode(JSON.stringify(this.#metadata));
      await tree.withTemporary([bytes], this.#signal, (source) => tree.files.rename(source, sidecar));
      await tree.syncParent(this.#path); // or a power cut might keep the object's name and not this one
    }
    const outcome = await advanceFromNothing(tree, this.#path, temporary, info);
    if (described && outcome === "lost") await removeStoreEntry(tree.files, sidecar);
    return { outcome, etag: plainTag(info) };
  }
}
