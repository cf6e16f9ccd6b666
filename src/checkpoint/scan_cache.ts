/**
 * What the last checkpoint saw of each entry, so that an unchanged file is not read again, and a tree in which nothing
 * changed needs no manifest. Local, and never trusted: a damaged or foreign cache is ignored and costs one full read. A
 * file counts as unchanged only if size, mtime, ctime, inode and device are equal (an edit that keeps size and mtime
 * still moves ctime), and if both times lie clearly before the last scan: what was written within the same tick as that
 * scan may have changed after it, unseen.
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { readBytesIfPresent, removeIfPresent, writeFileAtomically } from "../platform/files.ts";
import type { Clock } from "../platform/clock.ts";
import type { PathBytes } from "../platform/libc_files.ts";
import type { ScannedEntry } from "./scan.ts";
import { CONTENT, RecordList, RecordWriter } from "./scan_record.ts";
import type { ContentPart, FilesSummary, ScanFacts, TreeEntry } from "./types.ts";

/** Two seconds: the coarsest timestamps in use (FAT); also covers a file server whose clock is a little behind. */
export const RACY_NS = 2_000_000_000n;

const FORMAT = "state-manager scan cache 3";
/** SHA-256 in hex and a newline, over all that follows. */
const DIGEST_BYTES = 65;

interface Header {
  readonly format: string;
  readonly root: string;
  /** Which program made it: only the same one would write the same manifest. */
  readonly stamp: string;
  readonly start_ns: string;
  readonly records: number;
  /** The manifest of exactly these records; null where there was none (a file that could not be read). */
  readonly manifest: FilesSummary | null;
}

/** What of a file need not be read again. */
export interface CachedContent {
  readonly parts: readonly ContentPart[];
  readonly xattrs: Pick<TreeEntry, "xattrs">;
}

interface Saved {
  readonly startNs: bigint;
  readonly records: RecordList;
  readonly manifest: FilesSummary | null;
}

export interface ScanCacheOptions {
  readonly path: string;
  readonly rootPath: string;
  readonly stamp: string;
}

/** The cache of one root: reads what the last run saved, collects what this one sees. */
export class ScanCache {
  readonly #options: ScanCacheOptions;
  readonly #startNs: bigint;
  readonly #saved: Saved;
  /** Content that was read in this run, with what the file was then; true for what was found here. */
  readonly #seen = new Map<
    ScannedEntry,
    { readonly now: ScannedEntry; readonly parts: readonly ContentPart[] }
  >();

  constructor(options: ScanCacheOptions, startNs: bigint, saved: Saved) {
    this.#options = options;
    this.#startNs = startNs;
    this.#saved = saved;
  }

  /** True for what the last run took as a database; else undefined, and the scan looks into the file. */
  readonly knownDatabase = (path: PathBytes, facts: ScanFacts): boolean | undefined => {
    const { records } = this.#saved;
    const at = records.find(path);
    return at >= 0 && records.isDatabase(at) && records.isInode(at, facts) ? true : undefined;
  };

  /** The file's content and extended attributes at the last run, or null if it may have changed since, or was not there. */
  find(scanned: ScannedEntry): CachedContent | null {
    const { records } = this.#saved;
    const at = records.find(scanned.entry.path);
    if (at < 0 || !records.hasContent(at) || !records.isSameContent(at, scanned)) return null;
    return this.#isOld(at) ? records.content(at) : null;
  }

  /** True when neither time of the entry may hide a later change. */
  #isOld(at: number): boolean {
    return this.#saved.records.newestNs(at) < this.#saved.startNs - RACY_NS;
  }

  /** The manifest of the last run, if it would come out the same: not one entry came, went, or may have changed. */
  unchanged(scanned: readonly ScannedEntry[]): FilesSummary | null {
    const { manifest, records } = this.#saved;
    if (manifest === null || records.count !== scanned.length) return null;
    const same = scanned.every((each, i) => {
      const at = records.at(i);
      return records.isSameEntry(at, each) && this.#isOld(at);
    });
    return same ? manifest : null;
  }

  /**
   * What was read, or found unchanged, in this run; `now` is the file when its reading began, or by the scan, with its
   * extended attributes.
   */
  remember(scanned: ScannedEntry, parts: readonly ContentPart[], now: ScannedEntry = scanned): void {
    this.#seen.set(scanned, { now, parts });
  }

  /**
   * Replaces the saved cache by what this run saw: all entries in path order, and the manifest made of them. Only when
   * every chunk of it is stored.
   */
  async save(scanned: Iterable<ScannedEntry>, manifest: FilesSummary | null): Promise<void> {
    const writer = new RecordWriter();
    let isWhole = true;
    const groups = new Set<number>();
    for (const each of scanned) {
      const content = this.#seen.get(each);
      const { linkGroup, type } = each.entry;
      const follows = linkGroup !== undefined && groups.has(linkGroup);
      if (linkGroup !== undefined) groups.add(linkGroup);
      if (content !== undefined) writer.add(content.now, CONTENT, content.parts);
      else if (type !== "file" || follows) writer.add(each, 0, []);
      else isWhole = false; // not read, or not in one state: the next run tries again, and tells again
    }
    const header: Header = {
      format: FORMAT,
      root: this.#options.rootPath,
      stamp: this.#options.stamp,
      start_ns: String(this.#startNs),
      records: writer.count,
      manifest: isWhole ? manifest : null,
    };
    const body = Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), ...writer.bytes()]);
    await writeFileAtomically(this.#options.path, Buffer.concat([Buffer.from(`${sha256Of(body)}\n`), body]));
  }
}

function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * Opens the cache file at `path` for a run over the root at `rootPath` that begins now: open it before the scan.
 * The wall clock decides nothing but how much is read: a step back makes times look young, and files are read again.
 */
export async function openScanCache(
  options: {
    readonly path: string;
    readonly rootPath: string;
    readonly clock: Clock;
    readonly stamp?: string;
  },
): Promise<ScanCache> {
  const { path, rootPath, clock, stamp = "" } = options;
  const startNs = BigInt(Math.floor(clock.wallMs())) * 1_000_000n;
  const bytes = await readBytesIfPresent(path);
  const none = { startNs: 0n, records: RecordList.none(), manifest: null };
  const saved = bytes === null ? none : parseCache(bytes, rootPath, stamp) ?? none;
  return new ScanCache({ path, rootPath, stamp }, startNs, saved);
}

/** For an operator who asks for a full read. */
export function forgetScanCache(path: string): Promise<void> {
  return removeIfPresent(path);
}

/** Null for anything but a whole cache of this format and root: the checksum covers every byte below it. */
function parseCache(bytes: Uint8Array<ArrayBuffer>, rootPath: string, stamp: string): Saved | null {
  const digest = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(DIGEST_BYTES, bytes.length))
    .toString("latin1");
  const body = bytes.subarray(DIGEST_BYTES);
  if (digest !== `${sha256Of(body)}\n`) return null;
  const end = body.indexOf(0x0a);
  const header: Partial<Header> = JSON.parse(new TextDecoder().decode(body.subarray(0, end)));
  if (header.format !== FORMAT || header.root !== rootPath || header.start_ns === undefined) return null;
  return {
    startNs: BigInt(header.start_ns),
    records: new RecordList(body.subarray(end + 1), header.records ?? 0),
    manifest: header.stamp === stamp ? header.manifest ?? null : null,
  };
}
