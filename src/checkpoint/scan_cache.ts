/**
 * What the last checkpoint saw of each file, so that an unchanged one is not read again. Local, and never trusted: a
 * damaged or foreign cache is ignored and costs one full read. A file counts as unchanged only if size, mtime, ctime,
 * inode and device are equal (an edit that keeps size and mtime still moves ctime), and if both times lie clearly
 * before the last scan: what was written within the same tick as that scan may have changed after it, unseen.
 */

import { createHash } from "node:crypto";
import { readTextIfPresent, removeIfPresent, writeFileAtomically } from "../platform/files.ts";
import type { Clock } from "../platform/clock.ts";
import type { PathBytes } from "../platform/libc_files.ts";
import { byteText } from "./byte_text.ts";
import type { ScannedEntry } from "./scan.ts";
import type { ContentPart, ScanFacts } from "./types.ts";

/** Two seconds: the coarsest timestamps in use (FAT); also covers a file server whose clock is a little behind. */
export const RACY_NS = 2_000_000_000n;

/** Everything that decides whether a file's content may differ. */
interface Fingerprint {
  readonly text: string;
  /** The younger of all times in it. */
  readonly newestNs: bigint;
}

/** One file of the cache: fingerprint, newest time, and its parts as [id, length] or a hole's length. */
type CacheLine = readonly [
  path: string,
  fingerprint: string,
  newestNs: string,
  sqlite: 0 | 1,
  parts: readonly ((readonly [string, number]) | number)[],
];

interface CachedFile {
  readonly fingerprint: string;
  readonly newestNs: bigint;
  readonly sqlite: boolean;
  readonly parts: readonly ContentPart[];
}

const FORMAT = "state-manager scan cache 1";

/** A database's content is its file and its log together; what was not read as a database does not count as one. */
export function fingerprintOf({ entry, facts, wal }: ScannedEntry): Fingerprint {
  const own = `${entry.size}:${entry.mtimeNs}:${facts.ctimeNs}:${facts.ino}:${facts.dev}`;
  const times = [entry.mtimeNs, facts.ctimeNs, ...(wal === null ? [] : [wal.mtimeNs, wal.ctimeNs])];
  const newestNs = times.reduce((newest, time) => time > newest ? time : newest);
  if (entry.sqlite !== true) return { text: own, newestNs };
  const log = wal === null ? "" : `${wal.size}:${wal.mtimeNs}:${wal.ctimeNs}:${wal.ino}`;
  return { text: `${own} sqlite ${log}`, newestNs };
}

/** The cache of one root: reads what the last run saved, collects what this one sees. */
export class ScanCache {
  readonly #path: string;
  readonly #rootPath: string;
  readonly #startNs: bigint;
  readonly #previousStartNs: bigint;
  readonly #previous: ReadonlyMap<string, CachedFile>;
  readonly #seen = new Map<string, CachedFile>();

  constructor(
    options: { readonly path: string; readonly rootPath: string; readonly startNs: bigint },
    saved: { readonly startNs: bigint; readonly files: ReadonlyMap<string, CachedFile> },
  ) {
    this.#path = options.path;
    this.#rootPath = options.rootPath;
    this.#startNs = options.startNs;
    this.#previousStartNs = saved.startNs;
    this.#previous = saved.files;
  }

  /** True for what the last run took as a database; else undefined, and the scan looks into the file. */
  readonly knownDatabase = (path: PathBytes, facts: ScanFacts): boolean | undefined => {
    const cached = this.#previous.get(byteText(path));
    if (cached === undefined || !cached.sqlite) return undefined;
    return cached.fingerprint.includes(`:${facts.ctimeNs}:${facts.ino}:${facts.dev} `) ? true : undefined;
  };

  /** Parts of the file's content at the last run, or null if it may have changed since, or was not there. */
  find(scanned: ScannedEntry): readonly ContentPart[] | null {
    const cached = this.#previous.get(byteText(scanned.entry.path));
    if (cached === undefined) return null;
    if (cached.fingerprint !== fingerprintOf(scanned).text) return null;
    return cached.newestNs < this.#previousStartNs - RACY_NS ? cached.parts : null;
  }

  /** What was read, or found unchanged, in this run. `scanned` must be of before the reading. */
  remember(scanned: ScannedEntry, parts: readonly ContentPart[]): void {
    const { text, newestNs } = fingerprintOf(scanned);
    const sqlite = scanned.entry.sqlite === true;
    this.#seen.set(byteText(scanned.entry.path), { fingerprint: text, newestNs, sqlite, parts });
  }

  /** Replaces the saved cache by what this run saw. Call it only after the checkpoint is committed. */
  async save(): Promise<void> {
    const lines: string[] = [];
    for (const [path, { fingerprint, newestNs, sqlite, parts }] of this.#seen) {
      const short = parts.map((part) => part.kind === "hole" ? part.length : [part.id, part.length] as const);
      const line: CacheLine = [path, fingerprint, String(newestNs), sqlite ? 1 : 0, short];
      lines.push(JSON.stringify(line));
    }
    const header = JSON.stringify({ format: FORMAT, root: this.#rootPath, start_ns: String(this.#startNs) });
    const body = [header, ...lines].join("\n");
    await writeFileAtomically(this.#path, `${sha256Of(body)}\n${body}`);
  }
}

function sha256Of(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/**
 * Opens the cache file at `path` for a run over the root at `rootPath` that begins now: open it before the scan.
 * The wall clock decides nothing but how much is read: a step back makes times look young, and files are read again.
 */
export async function openScanCache(
  options: { readonly path: string; readonly rootPath: string; readonly clock: Clock },
): Promise<ScanCache> {
  const startNs = BigInt(Math.floor(options.clock.wallMs())) * 1_000_000n;
  const bag = { path: options.path, rootPath: options.rootPath, startNs };
  const text = await readTextIfPresent(options.path);
  const saved = text === null ? null : parseCache(text, options.rootPath);
  return new ScanCache(bag, saved ?? { startNs: 0n, files: new Map() });
}

/** For an operator who asks for a full read. */
export function forgetScanCache(path: string): Promise<void> {
  return removeIfPresent(path);
}

/** Null for anything but a whole cache of this format and root: the checksum covers every byte below it. */
function parseCache(
  text: string,
  rootPath: string,
): { startNs: bigint; files: Map<string, CachedFile> } | null {
  const cut = text.indexOf("\n");
  const body = text.slice(cut + 1);
  if (cut !== 64 || sha256Of(body) !== text.slice(0, cut)) return null;
  const [first = "", ...lines] = body.split("\n");
  const header: { format?: unknown; root?: unknown; start_ns?: unknown } = JSON.parse(first);
  if (header.format !== FORMAT || header.root !== rootPath || typeof header.start_ns !== "string") {
    return null;
  }
  const files = new Map<string, CachedFile>();
  for (const line of lines) {
    const [path, fingerprint, newestNs, sqlite, parts]: CacheLine = JSON.parse(line);
    files.set(path, {
      fingerprint,
      newestNs: BigInt(newestNs),
      sqlite: sqlite === 1,
      parts: parts.map(partOf),
    });
  }
  return { startNs: BigInt(header.start_ns), files };
}

function partOf(part: (readonly [string, number]) | number): ContentPart {
  return typeof part === "number"
    ? { kind: "hole", length: part }
    : { kind: "chunk", id: part[0], length: part[1] };
}
