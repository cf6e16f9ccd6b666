/**
 * Reads a manifest of which pieces may be lost: what the others say, in an order and with parents that a stage accepts.
 * Nothing else is more lenient than the reader that a restore uses: a line that breaks a rule still ends it.
 */

import type { PathBytes } from "../platform/libc_files.ts";
import type { Cipher } from "./cipher.ts";
import { damaged } from "./codec.ts";
import { comparePaths, ManifestReader } from "./manifest.ts";
import { LineProblem, parseLine } from "./manifest_line.ts";
import type { FilesItem } from "./records.ts";
import { byteText } from "./byte_text.ts";
import type { ContentPart, ManifestEntry, TreeEntry } from "./types.ts";

export interface LenientEntry extends ManifestEntry {
  /** A part of its content list was in a lost piece: its name is known, its bytes are not all. */
  readonly isCut: boolean;
}

export interface LenientManifest {
  /** Ids of the pieces that were lost. */
  readonly lostPieces: readonly string[];
  /**
   * What is known, in path order and in batches of `entries`, as often as it is called; the last may have less, or none.
   * Error: `data-damaged` for a manifest that is whole but not right.
   */
  batches(entries: number): Generator<readonly LenientEntry[]>;
}

/** Null in `pieces`, or absent: the piece is lost. Error: `data-damaged` for a line that breaks a rule. */
export function openLeniently(
  item: FilesItem,
  name: string,
  pieces: ReadonlyMap<string, Uint8Array | null>,
  cipher: Cipher,
): LenientManifest {
  const object = `manifest of "${name}"`;
  const found = item.manifest.map((id) => pieces.get(id) ?? null);
  const lostPieces = item.manifest.filter((_, i) => found[i] === null);
  if (lostPieces.length === 0) return { lostPieces, batches: (entries) => wholeBatches(entries) };
  const invented = lostFolders(object, found);
  return {
    lostPieces,
    *batches(entries) {
      const reading = new LenientReading(object, invented);
      for (const piece of found) {
        reading.take(piece);
        while (reading.complete.length >= entries) yield reading.complete.splice(0, entries);
      }
      reading.finish();
      while (reading.complete.length > entries) yield reading.complete.splice(0, entries);
      yield reading.complete;
    },
  };

  function* wholeBatches(entries: number): Generator<readonly LenientEntry[]> {
    const reader = new ManifestReader(object, item, cipher);
    const whole = (batch: readonly ManifestEntry[]) => batch.map((each) => ({ ...each, isCut: false }));
    for (const piece of found) {
      if (piece !== null) reader.add(piece);
      while (reader.complete >= entries) yield whole(reader.take(entries));
    }
    yield whole(reader.finish());
  }
}

/**
 * Folders whose own lines are lost, by what lies in them, in path order. Looked for before all else: the first of what is
 * in one may come after neighbours that sort behind the folder itself.
 */
function lostFolders(object: string, pieces: readonly (Uint8Array | null)[]): readonly PathBytes[] {
  const reading = new LenientReading(object, []);
  for (const piece of pieces) {
    reading.take(piece);
    reading.complete.length = 0;
  }
  reading.finish();
  return reading.missing.sort(comparePaths);
}

interface Member {
  readonly entry: TreeEntry;
  readonly parts: ContentPart[];
  /** Its first is in a lost piece: it becomes the first itself, with nothing in it. */
  readonly isAlone: boolean;
}

class LenientReading {
  /** Entries whose last line has come, in path order. */
  readonly complete: LenientEntry[] = [];
  /** Folders that nothing names but what is in them. */
  readonly missing: PathBytes[] = [];
  readonly #object: string;
  /** Folders to put in, in path order. */
  readonly #invented: readonly PathBytes[];
  #inventedAt = 0;
  readonly #folders: Set<string>;
  /** First members of hard link groups by path. */
  readonly #groups = new Map<string, number>();
  /** The entry that `+` lines belong to; null after a gap, where they are nobody's. */
  #open: Member | null = null;
  #previous: PathBytes | null = null;
  #groupCount = 0;

  constructor(object: string, invented: readonly PathBytes[]) {
    this.#object = object;
    this.#invented = invented;
    this.#folders = new Set(invented.map(byteText));
  }

  /** The next piece; null: it is lost. */
  take(piece: Uint8Array | null): void {
    // Perhaps more of what is open was told in the lost piece: `#close` looks at its size.
    if (piece === null) return this.#close();
    for (let start = 0; start < piece.length;) {
      const end = piece.indexOf(0x0a, start);
      if (end < 0) throw damaged(this.#object, "a line is not ended");
      try {
        this.#takeLine(piece.subarray(start, end));
      } catch (error) {
        throw error instanceof LineProblem ? damaged(this.#object, error.message) : error;
      }
      start = end + 1;
    }
  }

  finish(): void {
    this.#close();
  }

  #takeLine(bytes: Uint8Array): void {
    const line = parseLine(bytes);
    if (line.kind === "more") {
      this.#open?.parts.push(...line.parts);
      return;
    }
    this.#close();
    const { link } = line;
    this.#checkOrder(line.entry.path);
    this.#lookForParents(line.entry.path);
    const path = byteText(line.entry.path);
    let entry: TreeEntry = line.entry;
    let isAlone = false;
    if (link !== null) {
      const group = link.first ? undefined : this.#groups.get(byteText(new Uint8Array(link.path)));
      const number = group ?? ++this.#groupCount;
      if (link.first) this.#groups.set(path, number);
      entry = { ...entry, linkGroup: number };
      isAlone = !link.first && group === undefined;
    }
    if (entry.type === "directory") this.#folders.add(path);
    this.#open = { entry, parts: [...line.parts], isAlone };
  }

  #close(): void {
    const open = this.#open;
    this.#open = null;
    if (open === null) return;
    const { entry, parts, isAlone } = open;
    this.#putFoldersBefore(entry.path);
    this.complete.push({ entry, parts, isCut: isAlone || this.#isCut(open) });
  }

  #isCut({ entry, parts }: Member): boolean {
    if (entry.type !== "file") return false;
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (length > entry.size) throw damaged(this.#object, "a file has more content than bytes");
    const isFollower = entry.linkGroup !== undefined && length === 0;
    return length < entry.size && !isFollower;
  }

  /** With rights for their owner alone. */
  #putFoldersBefore(path: PathBytes): void {
    for (;;) {
      const folder = this.#invented[this.#inventedAt];
      if (folder === undefined || comparePaths(folder, path) >= 0) return;
      this.#inventedAt++;
      const entry = {
        path: folder,
        type: "directory",
        mode: 0o700,
        uid: 0,
        gid: 0,
        mtimeNs: 0n,
        size: 0,
      } as const;
      this.complete.push({ entry, parts: [], isCut: false });
    }
  }

  #checkOrder(path: PathBytes): void {
    if (this.#previous !== null && comparePaths(this.#previous, path) >= 0) {
      throw new LineProblem("entries are sorted by path");
    }
    this.#previous = path;
  }

  #lookForParents(path: PathBytes): void {
    let at = path;
    while (at.length > 0) {
      at = at.slice(0, Math.max(0, at.lastIndexOf(0x2f)));
      const folder = byteText(at);
      if (this.#folders.has(folder)) break;
      this.#folders.add(folder);
      this.missing.push(at);
    }
  }
}
