/**
 * Reads a manifest of which pieces may be lost: what the others say, in an order and with parents that a stage accepts.
 * Nothing else is more lenient than the reader that a restore uses: a line that breaks a rule still ends it.
 */

import type { Cipher } from "./cipher.ts";
import { damaged } from "./codec.ts";
import { comparePaths, ManifestReader } from "./manifest.ts";
import { LineProblem, parseLine } from "./manifest_line.ts";
import type { FilesItem } from "./records.ts";
import { byteText } from "./byte_text.ts";
import type { ContentPart, ManifestEntry, TreeEntry } from "./types.ts";

export interface LenientManifest {
  readonly entries: readonly ManifestEntry[];
  /** Ids of the pieces that were lost. */
  readonly lostPieces: readonly string[];
  /** Files whose content list was in a lost piece or cut by one: their names are known, their bytes are not. */
  readonly cut: ReadonlySet<TreeEntry>;
}

/** Null in `pieces`, or absent: the piece is lost. Error: `data-damaged` for a manifest that is whole but not right. */
export function readLeniently(
  item: FilesItem,
  name: string,
  pieces: ReadonlyMap<string, Uint8Array | null>,
  cipher: Cipher,
): LenientManifest {
  const object = `manifest of "${name}"`;
  const found = item.manifest.map((id) => pieces.get(id) ?? null);
  const lostPieces = item.manifest.filter((_, i) => found[i] === null);
  if (lostPieces.length === 0) {
    const reader = new ManifestReader(object, item, cipher);
    for (const piece of found) if (piece !== null) reader.add(piece);
    return { entries: reader.finish(), lostPieces, cut: new Set() };
  }
  const reading = new LenientReading(object);
  for (const piece of found) {
    if (piece === null) reading.gap();
    else reading.add(piece);
  }
  return { ...reading.finish(), lostPieces };
}

interface Member {
  readonly entry: TreeEntry;
  readonly parts: ContentPart[];
}

class LenientReading {
  readonly #object: string;
  readonly #members: Member[] = [];
  readonly #folders = new Set<string>();
  /** First members of hard link groups by path. */
  readonly #groups = new Map<string, number>();
  readonly #cut = new Set<TreeEntry>();
  /** The file that `+` lines belong to; null after a gap, where they are nobody's. */
  #open: Member | null = null;
  #groupCount = 0;

  constructor(object: string) {
    this.#object = object;
  }

  gap(): void {
    // Perhaps more of its content was told in the lost piece: `#close` looks at its size.
    this.#close();
    this.#open = null;
  }

  add(piece: Uint8Array): void {
    for (let start = 0; start < piece.length;) {
      const end = piece.indexOf(0x0a, start);
      if (end < 0) throw damaged(this.#object, "a line is not ended");
      try {
        this.#take(piece.subarray(start, end));
      } catch (error) {
        throw error instanceof LineProblem ? damaged(this.#object, error.message) : error;
      }
      start = end + 1;
    }
  }

  finish(): Pick<LenientManifest, "entries" | "cut"> {
    this.#close();
    // A folder whose own line is lost was met with the first of what is in it, after neighbours that sort behind it.
    const entries = this.#members.toSorted((a, b) => comparePaths(a.entry.path, b.entry.path));
    return { entries, cut: this.#cut };
  }

  #take(bytes: Uint8Array): void {
    const line = parseLine(bytes);
    if (line.kind === "more") {
      this.#open?.parts.push(...line.parts);
      return;
    }
    this.#close();
    const { link } = line;
    this.#makeParents(line.entry.path);
    const path = byteText(line.entry.path);
    let entry: TreeEntry = line.entry;
    if (link !== null) {
      const group = link.first ? undefined : this.#groups.get(byteText(new Uint8Array(link.path)));
      const number = group ?? ++this.#groupCount;
      if (link.first) this.#groups.set(path, number);
      entry = { ...entry, linkGroup: number };
      // Its first is in a lost piece: it becomes the first itself, with nothing in it.
      if (!link.first && group === undefined) this.#cut.add(entry);
    }
    if (entry.type === "directory") this.#folders.add(path);
    const member = { entry, parts: [...line.parts] };
    this.#open = member;
    this.#members.push(member);
  }

  #close(): void {
    const open = this.#open;
    if (open === null || open.entry.type !== "file") return;
    const length = open.parts.reduce((sum, part) => sum + part.length, 0);
    if (length > open.entry.size) throw damaged(this.#object, "a file has more content than bytes");
    const isFollower = open.entry.linkGroup !== undefined && length === 0;
    if (length < open.entry.size && !isFollower) this.#cut.add(open.entry);
  }

  /** Folders whose own lines are lost, with rights for their owner alone. */
  #makeParents(path: TreeEntry["path"]): void {
    const missing: TreeEntry["path"][] = [];
    let at = path;
    while (at.length > 0) {
      at = at.slice(0, Math.max(0, at.lastIndexOf(0x2f)));
      if (this.#folders.has(byteText(at))) break;
      missing.push(at);
    }
    for (const folder of missing.reverse()) {
      this.#folders.add(byteText(folder));
      const entry = {
        path: folder,
        type: "directory",
        mode: 0o700,
        uid: 0,
        gid: 0,
        mtimeNs: 0n,
        size: 0,
      } as const;
      this.#members.push({ entry, parts: [] });
    }
    const previous = this.#members.at(-1);
    if (previous !== undefined && comparePaths(previous.entry.path, path) >= 0) {
      throw new LineProblem("entries are sorted by path");
    }
  }
}
