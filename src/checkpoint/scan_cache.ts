/**
 * What the last checkpoint saw of each entry, so that an unchanged file is not read again, and a tree in which nothing
 * changed needs no manifest. Local, and never trusted: a damaged or foreign cache is ignored and costs one full read. A
 * file counts as unchanged only if size, mtime, ctime, inode and device are equal (an edit that keeps size and mtime
 * still moves ctime), and if both times lie clearly before the last scan: what was written within the same tick as that
 * scan may have changed after it, unseen. What a process had mapped for writing at the last scan is read again always.
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
const NO_INODES: ReadonlySet<bigint> = new Set();
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
  /** Inodes of files that may change with no time moved (mapped_files.ts), taken before anything is read. */
  readonly mapped: () => ReadonlySet<bigint>;
}

/** The cache of one root: reads what the last run saved, collects what this one sees. */
export class ScanCache {
  readonly #options: ScanCacheOptions;
  readonly #startNs: bigint;
  readonly #saved: Saved;
  /** Entries of the scan that were compared, and whether each was that of the last run. */
  #compared = 0;
  #isSame = true;
  readonly #writer = new RecordWriter();
  #isWhole = true;

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

  /** A scan begins; all its entries are given to `compare`, in path order. */
  beginScan(): void {
    this.#compared = 0;
    this.#isSame = this.#saved.manifest !== null;
  }

  compare(scanned: ScannedEntry): void {
    const index = this.#compared++;
    if (!this.#isSame) return;
    const { records } = this.#saved;
    const at = records.at(index);
    this.#isSame = index < records.count && records.isSameEntry(at, scanned) && this.#isOld(at);
  }

  /** After the scan: the manifest of the last run, if it would come out the same: no entry came, went, or may have changed. */
  unchanged(): FilesSummary | null {
    const { manifest, records } = this.#saved;
    return this.#isSame && this.#compared === records.count ? manifest : null;
  }

  /**
   * A file's content that was read, or found unchanged, in this run, with the file when its reading began, or by the scan,
   * with its extended attributes. This, `pass` and `miss` come in path order, one for each entry of the scan.
   */
  remember(now: ScannedEntry, parts: readonly ContentPart[]): void {
    // A database is taken by SQLite, which maps nothing of it for writing but its index of the log.
    if (this.#options.mapped().has(now.facts.ino) && now.entry.sqlite !== true) {
      this.pass(now);
      this.miss();
    } else this.#writer.add(now, CONTENT, parts);
  }

  /** An entry without content of its own. */
  pass(scanned: ScannedEntry): void {
    this.#writer.add(scanned, 0, []);
  }

  /** A file that was not read, or not in one state: the next run tries again, and tells again. */
  miss(): void {
    this.#isWhole = false;
  }

  /** Replaces the saved cache by what this run saw, and the manifest made of it. Only when every chunk of it is stored. */
  async save(manifest: FilesSummary | null): Promise<void> {
    const writer = this.#writer;
    const header: Header = {
      format: FORMAT,
      root: this.#options.rootPath,
      stamp: this.#options.stamp,
      start_ns: String(this.#startNs),
      records: writer.count,
      manifest: this.#isWhole ? manifest : null,
    };
    const body = [Buffer.from(`${JSON.stringify(header)}\n`), ...writer.bytes()];
    await writeFileAtomically(this.#options.path, [Buffer.from(`${sha256Of(body)}\n`), ...body]);
  }
}

function sha256Of(pieces: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return hash.digest("hex");
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
    readonly mapped?: () => ReadonlySet<bigint>;
  },
): Promise<ScanCache> {
  const { path, rootPath, clock, stamp = "", mapped = () => NO_INODES } = options;
  const startNs = BigInt(Math.floor(clock.wallMs())) * 1_000_000n;
  const bytes = await readBytesIfPresent(path);
  const none = { startNs: 0n, records: RecordList.none(), manifest: null };
  const saved = bytes === null ? none : parseCache(bytes, rootPath, stamp) ?? none;
  return new ScanCache({ path, rootPath, stamp, mapped }, startNs, saved);
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
  if (digest !== `${sha256Of([body])}\n`) return null;
  const end = body.indexOf(0x0a);
  const header: Partial<Header> = JSON.parse(new TextDecoder().decode(body.subarray(0, end)));
  if (header.format !== FORMAT || header.root !== rootPath || header.start_ns === undefined) return null;
  return {
    startNs: BigInt(header.start_ns),
    records: new RecordList(body.subarray(end + 1), header.records ?? 0),
    manifest: header.stamp === stamp ? header.manifest ?? null : null,
  };
}
