/**
 * What must hold in every simulated history, judged with what no node knows: true time, and the store itself. The first
 * violation is kept.
 */

import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import type { LeaseRecord } from "../../src/lease/types.ts";
import { contentOf, descends, type Disk, NO_CONTENT } from "./disk.ts";

export class Checks {
  violation: string | null = null;
  /** Content of each checkpoint that a head ever named. */
  readonly #contents = new Map<string, string>();
  readonly #saved = new Set<string>([NO_CONTENT]);
  /** Finished: somebody was told so. */
  readonly #acknowledged = new Map<string, string>();
  readonly #objects = new Set<string>();
  /** What the last clean stop shipped, until the next start. */
  #shipped: string | null = null;
  readonly #shipping = new Map<string, string>();
  cleanStops = 0;

  fail(text: string): void {
    this.violation ??= text;
  }

  objectStored(name: string): void {
    this.#objects.add(name);
  }

  has(name: string): boolean {
    return this.#objects.has(name);
  }

  leaseWritten(before: LeaseRecord | null, after: LeaseRecord): void {
    const sameTerm = before?.holder === after.holder && before.token === after.token;
    if (!sameTerm && after.token !== (before?.token ?? 0) + 1) {
      this.fail(`token ${after.token} of ${after.holder} follows ${before?.token ?? 0}`);
    }
    if (sameTerm && before.state === "released" && after.state === "held") {
      this.fail(`${after.holder} holds again what it released`);
    }
    const content = this.#shipping.get(after.holder);
    if (after.state === "released" && content !== undefined) {
      this.#shipped = content;
      this.cleanStops++;
    }
  }

  headWritten(before: Head | null, after: Head, leaseToken: number): void {
    if (before !== null && after.epoch < before.epoch) {
      this.fail(`a put of term ${after.epoch} changes the head of term ${before.epoch}`);
    }
    if (before !== null && after.seq !== before.seq + 1) this.fail(`head ${after.seq} follows ${before.seq}`);
    if (after.epoch > leaseToken) this.fail(`head of term ${after.epoch}, the lease is at ${leaseToken}`);
    this.#nothingLost(before, after);
    this.#currentGoesOn(before, after);
  }

  #nothingLost(before: Head | null, after: Head): void {
    const listed = new Map(after.checkpoints.map((record) => [record.id, record]));
    for (const { id } of before?.checkpoints ?? []) {
      if (!listed.has(id)) this.fail(`checkpoint ${id} is gone from the head of term ${after.epoch}`);
    }
    for (const [id, content] of this.#acknowledged) {
      const record = listed.get(id);
      if (record === undefined) {
        this.fail(`finished checkpoint ${id} is gone from the head of term ${after.epoch}`);
      } else if (contentOf(record) !== content) this.fail(`finished checkpoint ${id} has another content`);
    }
    const named = after.intent === null ? after.checkpoints : [...after.checkpoints, after.intent.record];
    for (const record of named) this.#recordIsWhole(record);
  }

  #recordIsWhole(record: CheckpointRecord): void {
    if (this.#contents.has(record.id)) return;
    this.#contents.set(record.id, contentOf(record));
    this.#saved.add(contentOf(record));
    const pack = `pack ${contentOf(record)}`;
    if (!this.#objects.has(record.root)) {
      this.fail(`the head names ${record.id} before its root object is there`);
    }
    if (!this.#objects.has(pack)) this.fail(`the head names ${record.id} before its packs are there`);
  }

  #currentGoesOn(before: Head | null, after: Head): void {
    if (before === null || before.current === null || before.current === after.current) return;
    if (after.current === null) return this.fail("the head has no current state any more");
    if (after.current === before.intent?.record.id) return;
    const was = this.#contents.get(before.current) ?? NO_CONTENT;
    const is = this.#contents.get(after.current) ?? NO_CONTENT;
    if (descends(is, was)) return;
    this.fail(
      `the current state went from ${before.current} (${was}) to ${after.current} (${is}) without a restore`,
    );
  }

  acknowledged(record: CheckpointRecord): void {
    this.#acknowledged.set(record.id, contentOf(record));
  }

  /** `holder` stopped in order and was told that `content` is in the bucket; its release comes next. */
  shipping(holder: string, content: string): void {
    this.#shipping.set(holder, content);
  }

  /** A program is about to run. */
  programStarts(
    start: {
      readonly who: string;
      readonly token: number;
      readonly held: boolean;
      readonly disk: Disk;
      readonly head: Head | null;
    },
  ): void {
    const { who, token, held, disk, head } = start;
    if (!held) this.fail(`${who} starts its program without the lease`);
    if (head === null || head.epoch !== token) {
      return this.fail(
        `${who} starts its program in term ${token}, the head is at ${head?.epoch ?? "nothing"}`,
      );
    }
    if (head.intent !== null) this.fail(`${who} starts its program while a restore waits to be finished`);
    if (disk.journal !== null) this.fail(`${who} starts its program in the middle of a swap`);
    const current = head.current === null ? NO_CONTENT : this.#contents.get(head.current) ?? NO_CONTENT;
    if (!descends(disk.content, current)) {
      this.fail(
        `${who} starts on ${disk.content || "nothing"}, the current state is ${current || "nothing"}`,
      );
    }
    if (this.#shipped !== null && this.#shipped !== disk.content) {
      this.fail(`${who} starts on ${disk.content || "nothing"}, a clean stop shipped ${this.#shipped}`);
    }
    this.#shipped = null;
  }

  /** A restore to the past is the one thing that may take back what a stop shipped. */
  restoreBegins(): void {
    this.#shipped = null;
  }

  /** Local content was replaced or the marker changed. */
  diskChanged(who: string, before: Disk, after: Disk): void {
    if (
      after.content !== before.content && !this.#saved.has(before.content) &&
      !after.aside.includes(before.content)
    ) {
      this.fail(`${who} overwrites ${before.content}, which is saved nowhere`);
    }
    const id = after.marker.files["data"]?.checkpoint ?? null;
    if (after.marker === before.marker || id === null) return;
    const content = this.#contents.get(id);
    if (content === undefined || descends(after.content, content)) return;
    this.fail(`${who}'s marker says ${id} (${content}), its content is ${after.content || "nothing"}`);
  }
}
