/**
 * Builds a whole tree in a folder beside the live one, from a manifest and chunks that arrive in any order, so that
 * each pack is fetched once. Nothing here touches the live tree: if we die, or the disk fills, only the stage is left
 * and may be deleted. A manifest is not trusted: a path that could lead out of the stage is `data-damaged`.
 *
 * The stager makes what has no content and keeps the account of what is missing; the content is written by stage jobs
 * (stage_job.ts), here or in Workers, in any order.
 */

import { StateManagerError } from "../platform/errors.ts";
import {
  AT_CWD,
  closeFd,
  isErrno,
  LibcError,
  makeFifoAt,
  makeFolderAt,
  makeHardLinkAt,
  makeSymlinkAt,
  OPEN,
  openAt,
  ownGid,
  ownUid,
  type PathBytes,
  pathBytes,
  readAt,
  showPath,
  statFd,
  syncFilesystemAside,
  truncateFd,
  unlinkAt,
  writeAt,
} from "../platform/libc_files.ts";
import {
  type DefaultOwner,
  Refusals,
  removeOwnXattr,
  setFileAttributes,
  setNameAttributes,
} from "./attributes.ts";
import { type FormerStage, heldChunks } from "./former_stage.ts";
import { ManifestCheck, manifestDamaged } from "./manifest_check.ts";
import type { ChunkWrites, FileTarget, StageJobResult } from "./stage_job.ts";
import type { FileWarning, ManifestEntry, TreeEntry } from "./types.ts";

/** A chunk that has not come yet, and where its bytes go. */
export interface WantedChunk {
  readonly length: number;
  /** Pairs of an entry's number in the whole tree and an offset in that file: flat, since there is one for each file. */
  readonly places: readonly number[];
}

export interface StageOptions {
  /** Name of the files root, for warnings. */
  readonly root: string;
  /** Folder to make; it must not exist, its parent must. */
  readonly target: string;
}

/** The stager's part of a job: chunks that it gives out once, and the files that they go into. */
export interface StagePart {
  readonly folder: number;
  readonly owner: DefaultOwner;
  readonly files: readonly FileTarget[];
  /** In the order that was asked for, without those that nobody wants any more. */
  readonly chunks: readonly ChunkWrites[];
  /** Entry in the batch of each of `files`. */
  readonly entries: readonly number[];
}

const COPY_BYTES = 1024 * 1024;
const NO_PATH: PathBytes = new Uint8Array(0);

interface PendingFile {
  readonly entry: TreeEntry;
  /** Positions that still wait for their chunk, those in jobs under way included. */
  missing: number;
  created: boolean;
  /** Offsets of chunks that a former stage held already; null: it is not from one. */
  held: ReadonlySet<number> | null;
  /** The part that has it, of those that were taken the last one, its number there and how many of its positions that has. */
  part: number;
  number: number;
  count: number;
}

/**
 * One stage in the making. For each batch of its entries: `begin`, `resume` as often as there are former ones, then for
 * each job `take` its chunks, run it and `settle` it. At last `finish`. A batch may begin while jobs of those before it
 * are under way, unless it is to be resumed.
 */
export class TreeStager {
  readonly #options: StageOptions;
  readonly #target: PathBytes;
  #folder = -1;
  #owner: DefaultOwner = null;
  readonly #check: ManifestCheck;
  /** The batch that began last. */
  #entries: readonly ManifestEntry[] = [];
  /** Entries of the batches before it: each has a number in the whole tree. */
  #before = 0;
  /** Of all batches, until the end: what needs the whole tree. */
  readonly #folders: TreeEntry[] = [];
  readonly #carriers = new Map<number, TreeEntry>();
  readonly #links: (readonly [TreeEntry, TreeEntry])[] = [];
  readonly #wanted = new Map<string, WantedChunk & { readonly places: number[] }>();
  #added: string[] = [];
  #parts = 0;
  readonly #pending = new Map<number, PendingFile>();
  readonly #refusals = new Refusals();
  readonly #warnings: FileWarning[] = [];

  constructor(options: StageOptions) {
    this.#options = options;
    this.#target = pathBytes(options.target);
    this.#check = new ManifestCheck(options.root);
  }

  /**
   * Makes folders, symlinks, fifos and files without chunks of the next batch; says which chunks are wanted now, by this
   * batch or one before it, and where.
   */
  begin(entries: readonly ManifestEntry[]): ReadonlyMap<string, WantedChunk> {
    this.#check.check(entries);
    if (this.#folder < 0) this.#makeTarget();
    this.#before += this.#entries.length;
    this.#entries = entries;
    this.#added = [];
    let index = this.#before - 1;
    for (const { entry, parts } of entries) {
      index++;
      if (entry.type === "directory") {
        if (entry.path.length > 0) makeFolderAt(this.#folder, entry.path, 0o700);
        this.#folders.push(entry);
      } else if (entry.type === "symlink") {
        makeSymlinkAt(entry.target ?? new Uint8Array(0), this.#folder, entry.path);
        setNameAttributes(this.#folder, entry, this.#refusals);
      } else if (entry.type === "fifo") {
        makeFifoAt(this.#folder, entry.path, 0o600);
        setNameAttributes(this.#folder, entry, this.#refusals);
      } else {
        const carrier = entry.linkGroup === undefined ? undefined : this.#carriers.get(entry.linkGroup);
        if (carrier !== undefined) this.#links.push([carrier, entry]);
        else {
          if (entry.linkGroup !== undefined) this.#carriers.set(entry.linkGroup, entry);
          this.#planFile(index, entry, parts);
        }
      }
    }
    return this.#wanted;
  }

  /** Chunks that were not wanted before the last batch began. */
  get added(): readonly string[] {
    return this.#added;
  }

  /** What waits for a chunk by now. */
  get wanted(): ReadonlyMap<string, WantedChunk> {
    return this.#wanted;
  }

  /** Names of files that wait for a chunk, for errors. */
  usersOf(id: string): string {
    const indexes = new Set(this.#wanted.get(id)?.places.filter((_, i) => i % 2 === 0));
    return [...indexes].slice(0, 3).map((index) => showPath(this.#pending.get(index)?.entry.path ?? NO_PATH))
      .join(", ");
  }

  #makeTarget(): void {
    makeFolderAt(AT_CWD, this.#target, 0o700);
    this.#folder = openAt(AT_CWD, this.#target, OPEN.read | OPEN.directory);
    this.#owner = defaultOwner(this.#folder);
    // Inherited from the folder that the stage is made in, and everything in the stage would inherit it in turn.
    for (const acl of ["system.posix_acl_default", "system.posix_acl_access"]) {
      removeOwnXattr(this.#folder, acl);
    }
  }

  #planFile(index: number, entry: TreeEntry, parts: ManifestEntry["parts"]): void {
    let offset = 0;
    let missing = 0;
    for (const part of parts) {
      if (part.kind === "chunk") {
        const wanted = this.#wanted.get(part.id);
        if (wanted === undefined) {
          this.#wanted.set(part.id, { length: part.length, places: [index, offset] });
          this.#added.push(part.id);
        } else {
          if (wanted.length !== part.length) {
            throw manifestDamaged(this.#options.root, entry.path, "has a chunk of two lengths");
          }
          wanted.places.push(index, offset);
        }
        missing++;
      }
      offset += part.length;
    }
    if (missing > 0) {
      this.#pending.set(index, { entry, missing, created: false, held: null, part: 0, number: -1, count: 0 });
      return;
    }
    const fd = this.#create(entry);
    setFileAttributes(fd, entry, this.#owner, this.#refusals);
    closeFd(fd);
  }

  /** A new file with its whole size at once: what no chunk fills stays a hole. The caller closes. */
  #create(entry: TreeEntry): number {
    const flags = OPEN.write | OPEN.create | OPEN.exclusive | OPEN.noFollow;
    const fd = openAt(this.#folder, entry.path, flags, 0o600);
    try {
      if (entry.size > 0) truncateFd(fd, entry.size, entry.path);
      return fd;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /**
   * Goes on with files of a former stage, as far as reading them back proves their content; what is missing in them
   * stays wanted. Run it to its end before the first `take`. Yields the bytes of each part that need not come.
   */
  *resume(former: FormerStage): Generator<number> {
    const groups = new Map<number, number>();
    for (const { entry: { linkGroup } } of this.#entries) {
      if (linkGroup !== undefined) groups.set(linkGroup, (groups.get(linkGroup) ?? 0) + 1);
    }
    for (const [index, file] of [...this.#pending]) {
      const { entry } = file;
      if (file.created) continue;
      const links = entry.linkGroup === undefined ? 1 : groups.get(entry.linkGroup) ?? 1;
      const fd = former.take(this.#folder, entry, links);
      if (fd === null) continue;
      try {
        const held = yield* heldChunks(fd, this.#entries[index - this.#before]?.parts ?? [], former.cipher);
        if (held === null) {
          unlinkAt(this.#folder, entry.path);
          continue;
        }
        file.created = true;
        file.held = held;
        file.missing -= held.size;
        if (file.missing > 0) continue;
        // It may have any owner and mode: nothing of what a new file has can be taken for granted.
        setFileAttributes(fd, entry, null, this.#refusals);
        this.#pending.delete(index);
      } finally {
        closeFd(fd);
      }
    }
    this.#dropHeld();
  }

  /** Of files that have begun and not come yet. */
  missingBytes(): number {
    let bytes = 0;
    for (const { length, places } of this.#wanted.values()) bytes += length * places.length / 2;
    return bytes;
  }

  #dropHeld(): void {
    for (const [id, { length, places }] of this.#wanted) {
      const open: number[] = [];
      for (let i = 0; i < places.length; i += 2) {
        const [index = -1, offset = 0] = [places[i], places[i + 1]];
        const file = this.#pending.get(index);
        if (file !== undefined && file.held?.has(offset) !== true) open.push(index, offset);
      }
      if (open.length === 0) this.#wanted.delete(id);
      else this.#wanted.set(id, { length, places: open });
    }
  }

  /** Gives out chunks for one job. What nobody wants, or another job has taken, is left out. */
  take(chunks: readonly { readonly id: string; readonly length: number }[]): StagePart {
    const part = ++this.#parts;
    const files: PendingFile[] = [];
    const entries: number[] = [];
    const taken: ChunkWrites[] = [];
    for (const { id, length } of chunks) {
      const wanted = this.#wanted.get(id);
      if (wanted === undefined) continue;
      this.#checkLength(id, length, wanted);
      this.#wanted.delete(id);
      const { places } = wanted;
      let writes: number[] | null = null;
      for (let i = 0; i < places.length; i += 2) {
        const [index = -1, offset = 0] = [places[i], places[i + 1]];
        const file = this.#pending.get(index);
        if (file === undefined) continue;
        if (file.part !== part) {
          file.part = part;
          file.number = files.length;
          file.count = 0;
          files.push(file);
          entries.push(index);
        }
        file.count++;
        if (writes === null) writes = [file.number, offset]; // mostly all: a list that grows makes room for seventeen
        else writes.push(file.number, offset);
      }
      taken.push({ id, length, writes: writes ?? [] });
    }
    return {
      folder: this.#folder,
      owner: this.#owner,
      files: files.map((file) => this.#targetOf(file)),
      chunks: taken,
      entries,
    };
  }

  #checkLength(id: string, length: number, wanted: WantedChunk): void {
    if (length === wanted.length) return;
    throw new StateManagerError(
      "data-damaged",
      `restore files "${this.#options.root}": chunk ${id} has ${length} bytes, wanted ${wanted.length}`,
      { hint: "run a verify of the checkpoint; restore another one meanwhile" },
    );
  }

  /** A file that several jobs write into is made here, so that each of them finds it with its whole size. */
  #targetOf(file: PendingFile): FileTarget {
    const { entry, held } = file;
    const complete = file.missing === file.count;
    const create = !file.created;
    if (!create || complete) return { entry, create, complete, foreign: held !== null };
    closeFd(this.#create(entry));
    file.created = true;
    return { entry, create: false, complete, foreign: false };
  }

  /** Takes a job's result into the account; files that are complete by it but still lack their attributes. */
  settle(part: StagePart, result: StageJobResult): StagePart {
    this.#refusals.add(result.refused);
    const absent = new Set(result.absent);
    const spoiled: boolean[] = [];
    const written: boolean[] = [];
    for (const { id, length, writes } of part.chunks) {
      const wanted = absent.has(id) ? this.#wanted.get(id) ?? { length, places: [] } : null;
      if (wanted !== null) this.#wanted.set(id, wanted);
      for (let i = 0; i < writes.length; i += 2) {
        const number = writes[i] ?? -1;
        const entry = part.entries[number] ?? -1;
        if (wanted !== null) {
          wanted.places.push(entry, writes[i + 1] ?? 0);
          spoiled[number] = true;
        } else {
          written[number] = true;
          const file = this.#pending.get(entry);
          if (file !== undefined) file.missing--;
        }
      }
    }
    const files: FileTarget[] = [];
    const entries: number[] = [];
    part.files.forEach(({ complete }, number) => {
      const index = part.entries[number] ?? -1;
      const file = this.#pending.get(index);
      if (file === undefined) return;
      if (written[number] === true) file.created = true;
      if (file.missing > 0) return;
      this.#pending.delete(index);
      if (complete && spoiled[number] !== true) return;
      files.push({ entry: file.entry, create: false, complete: true, foreign: file.held !== null });
      entries.push(index);
    });
    return { folder: this.#folder, owner: this.#owner, files, chunks: [], entries };
  }

  /**
   * Hard links, then the folders' attributes from the bottom up (making things in them changed their times), then
   * one sync of the filesystem. When it returns, the stage is complete and durable.
   */
  async finish(): Promise<FileWarning[]> {
    this.#requireComplete();
    for (const [carrier, entry] of this.#links) this.#link(carrier, entry);
    for (const entry of this.#folders.reverse()) setNameAttributes(this.#folder, entry, this.#refusals);
    await this.sync();
    this.close();
    return [...this.#warnings, ...this.#refusals.warnings(this.#options.root)];
  }

  /** Makes durable what is written by now. */
  sync(): Promise<void> {
    return syncFilesystemAside(this.#folder, this.#target);
  }

  #requireComplete(): void {
    const [waiting] = this.#wanted.keys();
    if (waiting === undefined && this.#pending.size === 0) return;
    throw new StateManagerError(
      "data-damaged",
      `restore files "${this.#options.root}": ${this.#wanted.size} chunks are missing, the first is ${waiting}`,
      { hint: "run a verify of the checkpoint; restore another one meanwhile" },
    );
  }

  #link(carrier: TreeEntry, entry: TreeEntry): void {
    try {
      makeHardLinkAt(this.#folder, carrier.path, this.#folder, entry.path);
    } catch (error) {
      if (!isErrno(error, "EPERM", "EMLINK", "EOPNOTSUPP")) throw error;
      this.#copy(carrier, entry);
      const reason = `copied instead of linked: ${error instanceof LibcError ? error.errno : "refused"}`;
      this.#warnings.push({ root: this.#options.root, path: showPath(entry.path), reason });
    }
  }

  #copy(carrier: TreeEntry, entry: TreeEntry): void {
    const from = openAt(this.#folder, carrier.path, OPEN.read | OPEN.noFollow);
    try {
      const size = statFd(from).size;
      const to = this.#create({ ...entry, size });
      try {
        const buffer = new Uint8Array(COPY_BYTES);
        for (let at = 0; at < size;) {
          const count = readAt(from, buffer, at);
          if (count === 0) break;
          writeAt(to, buffer.subarray(0, count), at, entry.path);
          at += count;
        }
        setFileAttributes(to, entry, this.#owner, this.#refusals);
      } finally {
        closeFd(to);
      }
    } finally {
      closeFd(from);
    }
  }

  /** Closes what is open; the stage itself stays for the caller to swap in or delete. */
  close(): void {
    if (this.#folder >= 0) closeFd(this.#folder);
    this.#folder = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Whom new files in `folder` belong to. Below a folder that hands its own group down, or on a mount that does, the
 * folder itself has that group; only where it is ours is the answer certain.
 */
function defaultOwner(folder: number): DefaultOwner {
  const { uid, gid } = statFd(folder);
  return uid === ownUid() && gid === ownGid() ? { uid, gid } : null;
}
