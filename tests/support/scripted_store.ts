/** A store of a few objects in memory, whose every request the test may spoil. Tags are made of the content. */

import { createHash } from "node:crypto";
import { type ErrorCode, StateManagerError } from "../../src/platform/errors.ts";
import type { GetOptions, ObjectStore, PutOptions, StoredObject } from "../../src/storage/object_store.ts";

/**
 * before: fails, nothing done. after: done, and the reply is lost. hang: nothing done, never answers.
 * hang-after: done, never answers. A code: refused with it.
 */
export type Spoil =
  | "before"
  | "after"
  | "hang"
  | "hang-after"
  | ErrorCode
  | null;

export class ScriptedStore implements ObjectStore {
  readonly description = "scripted store";
  readonly objects = new Map<string, Uint8Array<ArrayBuffer>>();
  /** Bodies of all puts, in order of sending, landed or not. */
  readonly puts: string[] = [];
  /** Called with each put before it is sent on. */
  onPut: (key: string, text: string) => void = () => {};
  /** Keys of all gets. */
  readonly reads: string[] = [];
  gets = 0;
  spoil: (operation: "get" | "put", key: string) => Spoil = () => null;

  text(key: string): string | null {
    const body = this.objects.get(key);
    return body === undefined ? null : new TextDecoder().decode(body);
  }

  write(key: string, text: string): void {
    this.objects.set(key, new TextEncoder().encode(text));
  }

  get(key: string, options: GetOptions = {}): Promise<StoredObject> {
    this.gets++;
    this.reads.push(key);
    return this.#request("get", key, options.signal, () => {
      const body = this.objects.get(key);
      if (body === undefined) {
        throw new StateManagerError(
          "object-not-found",
          `get ${key}: not there`,
        );
      }
      return {
        key,
        sizeBytes: body.length,
        etag: tagOf(body),
        modifiedMs: 0,
        metadata: {},
        body,
      };
    });
  }

  put(
    key: string,
    body: Uint8Array<ArrayBuffer>,
    options: PutOptions = {},
  ): Promise<{ etag: string }> {
    const text = new TextDecoder().decode(body);
    this.puts.push(text);
    this.onPut(key, text);
    return this.#request("put", key, options.signal, () => {
      const { condition } = options;
      const current = this.objects.get(key);
      const holds = condition === undefined ||
        ("etag" in condition
          ? current !== undefined && tagOf(current) === condition.etag
          : current === undefined);
      if (!holds) {
        throw new StateManagerError(
          "precondition-failed",
          `put ${key}: changed meanwhile`,
        );
      }
      this.objects.set(key, body.slice());
      return { etag: tagOf(body) };
    });
  }

  putLarge(): Promise<never> {
    return Promise.reject(
      new StateManagerError("internal", "putLarge: not part of this store"),
    );
  }

  head(): Promise<never> {
    return Promise.reject(
      new StateManagerError("internal", "head: not part of this store"),
    );
  }

  list(): Promise<never> {
    return Promise.reject(
      new StateManagerError("internal", "list: not part of this store"),
    );
  }

  delete(key: string): Promise<void> {
    this.objects.delete(key);
    return Promise.resolve();
  }

  clockMs(): null {
    return null;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** Ignores `signal` when it hangs, as a stuck connection may. */
  async #request<T>(
    operation: "get" | "put",
    key: string,
    signal: AbortSignal | undefined,
    act: () => T,
  ): Promise<T> {
    await Promise.resolve();
    signal?.throwIfAborted();
    const spoil = this.spoil(operation, key);
    if (spoil === null) return act();
    if (spoil === "after" || spoil === "hang-after") act();
    if (spoil === "hang" || spoil === "hang-after") {
      return await new Promise<never>(() => {});
    }
    const lost = spoil === "before" || spoil === "after";
    throw new StateManagerError(
      lost ? "store-unreachable" : spoil,
      `${operation}: spoiled (${spoil})`,
    );
  }
}

function tagOf(body: Uint8Array): string {
  return createHash("md5").update(body).digest("hex");
}
