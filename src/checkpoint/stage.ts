/**
 * Builds a whole tree in a folder beside the live one, from a manifest and chunks that arrive in any order, so that
 * each pack is fetched once. Nothing here touches the live tree: if we die, or the disk fills, only the stage is left
 * and may be deleted. A manifest is not trusted: a path that could lead out of the stage is `data-damaged`.
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
  type PathBytes,
  pathBytes,
  readAt,
  setModeAt,
  setModeFd,
  setOwnerAt,
  setOwnerFd,
  setTimesAt,
  setTimesFd,
  showPath,
  statFd,
  syncFd,
  syncFilesystem,
  truncateFd,
  unlinkAt,
  writeAt,
} from "../platform/libc_files.ts";
import { type FormerStage, heldChunks } from "./former_stage.ts";
import { removeXattr, setXattr, type XattrPlace } from "../platform/libc_xattrs.ts";
import { bytesOf } from "./byte_text.ts";
import { checkManifest, manifestDamaged } from "./manifest_check.ts";
import type { FileWarning, ManifestEntry, TreeEntry } from "./types.ts";
import { XATTR_REFUSALS, xattrKind } from "./xattrs.ts";

/** Where a chunk's bytes go: index of the entry in the manifest, and offset in that file. */
export interface ChunkPosition {
  readonly entry: number;
  readonly offset: number;
}

export interface StageOptions {
  /** Name of the files root, for warnings. */
  readonly root: string;
  /** Folder to make; it must not exist, its parent must. */
  readonly target: string;
}

/** Open files at one time: chunks of one pack mostly belong to neighbours, and 1024 descriptors are usual. */
const OPEN_FILES_MAX = 64;
/** Files from this size are synced one by one, which spreads the writing; the rest waits for one syncfs. */
const SYNC_ALONE_BYTES = 16 * 1024 * 1024;
const COPY_BYTES = 1024 * 1024;
const SET_ID_BITS = 0o6000;
const REFUSALS: readonly string[] = ["EPERM", "EACCES", "EINVAL", "EOPNOTSUPP"];

interface PendingFile {
  readonly entry: TreeEntry;
  /** Positions that still wait for their chunk. */
  missing: number;
  created: boolean;
  /** Offsets of chunks that a former stage held already. */
  held: ReadonlySet<number>;
}

const NOTHING: ReadonlySet<number> = new Set();

/** One stage in the making: `begin`, `resume` as often as there are former ones, `deliver` each wanted chunk, `finish`. */
export class TreeStager {
  readonly #options: StageOptions;
  readonly #target: PathBytes;
  #folder = -1;
  #entries: readonly ManifestEntry[] = [];
  readonly #wanted = new Map<string, ChunkPosition[]>();
  readonly #lengths = new Map<string, number>();
  readonly #pending = new Map<number, PendingFile>();
  /** Least recently used first. */
  readonly #openFiles = new Map<number, number>();
  readonly #warnings: FileWarning[] = [];
  readonly #refused = new Map<string, { first: PathBytes; count: number }>();

  constructor(options: StageOptions) {
    this.#options = options;
    this.#target = pathBytes(options.target);
  }

  /** Makes folders, symlinks, fifos and files without chunks; says which chunks are wanted, and where. */
  begin(entries: readonly ManifestEntry[]): ReadonlyMap<string, readonly ChunkPosition[]> {
    checkManifest(entries, this.#options.root);
    makeFolderAt(AT_CWD, this.#target, 0o700);
    this.#folder = openAt(AT_CWD, this.#target, OPEN.read | OPEN.directory);
    // Inherited from the folder that the stage is made in, and everything in the stage would inherit it in turn.
    for (const acl of ["system.posix_acl_default", "system.posix_acl_access"]) this.#without(acl);
    this.#entries = entries;
    const carriers = new Set<number>();
    for (const [index, { entry, parts }] of entries.entries()) {
      if (entry.type === "directory") {
        if (entry.path.length > 0) makeFolderAt(this.#folder, entry.path, 0o700);
      } else if (entry.type === "symlink") {
        makeSymlinkAt(entry.target ?? new Uint8Array(0), this.#folder, entry.path);
        this.#attributes(entry);
      } else if (entry.type === "fifo") {
        makeFifoAt(this.#folder, entry.path, 0o600);
        this.#attributes(entry);
      } else if (entry.linkGroup === undefined || !carriers.has(entry.linkGroup)) {
        if (entry.linkGroup !== undefined) carriers.add(entry.linkGroup);
        this.#planFile(index, entry, parts);
      }
    }
    return this.#wanted;
  }

  #planFile(index: number, entry: TreeEntry, parts: ManifestEntry["parts"]): void {
    let offset = 0;
    let missing = 0;
    for (const part of parts) {
      if (part.kind === "chunk") {
        const known = this.#lengths.get(part.id);
        if (known !== undefined && known !== part.length) {
          throw manifestDamaged(this.#options.root, entry.path, "has a chunk of two lengths");
        }
        this.#lengths.set(part.id, part.length);
        const positions = this.#wanted.get(part.id);
        if (positions === undefined) this.#wanted.set(part.id, [{ entry: index, offset }]);
        else positions.push({ entry: index, offset });
        missing++;
      }
      offset += part.length;
    }
    const file = { entry, missing, created: false, held: NOTHING };
    this.#pending.set(index, file);
    if (missing === 0) this.#complete(index, file);
  }

  /**
   * Goes on with files of a former stage, as far as reading them back proves their content; what is missing in them
   * stays wanted. Run it to its end before the first `deliver`. Yields the bytes of each part that need not come.
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
      this.#makeRoom();
      this.#openFiles.set(index, fd);
      const held = yield* heldChunks(fd, this.#entries[index]?.parts ?? [], former.cipher);
      if (held === null) {
        this.#shut(index);
        unlinkAt(this.#folder, entry.path);
        continue;
      }
      file.created = true;
      file.held = held;
      file.missing -= held.size;
      if (file.missing === 0) this.#complete(index, file);
    }
    this.#dropHeld();
  }

  #dropHeld(): void {
    for (const [id, positions] of this.#wanted) {
      const open = positions.filter(({ entry, offset }) => {
        const file = this.#pending.get(entry);
        return file !== undefined && !file.held.has(offset);
      });
      if (open.length === 0) this.#wanted.delete(id);
      else this.#wanted.set(id, open);
    }
  }

  /** Writes one chunk everywhere it belongs. A chunk that nobody wants, or wants no more, is ignored. */
  deliver(id: string, bytes: Uint8Array<ArrayBuffer>): void {
    const positions = this.#wanted.get(id);
    if (positions === undefined) return;
    if (bytes.length !== this.#lengths.get(id)) {
      throw new StateManagerError(
        "data-damaged",
        `restore files "${this.#options.root}": chunk ${id} has ${bytes.length} bytes, wanted ${
          this.#lengths.get(id)
        }`,
        { hint: "run a verify of the checkpoint; restore another one meanwhile" },
      );
    }
    this.#wanted.delete(id);
    for (const { entry: index, offset } of positions) {
      const file = this.#pending.get(index);
      if (file === undefined) continue;
      writeAt(this.#open(index, file), bytes, offset, file.entry.path);
      if (--file.missing === 0) this.#complete(index, file);
    }
  }

  #open(index: number, file: PendingFile): number {
    const cached = this.#openFiles.get(index);
    if (cached !== undefined) {
      this.#openFiles.delete(index);
      this.#openFiles.set(index, cached);
      return cached;
    }
    this.#makeRoom();
    const flags = file.created ? OPEN.write : OPEN.write | OPEN.create | OPEN.exclusive;
    const fd = openAt(this.#folder, file.entry.path, flags | OPEN.noFollow, 0o600);
    this.#openFiles.set(index, fd);
    if (!file.created) {
      file.created = true;
      // The whole size at once: what no chunk fills stays a hole.
      if (file.entry.size > 0) truncateFd(fd, file.entry.size, file.entry.path);
    }
    return fd;
  }

  #makeRoom(): void {
    const oldest = this.#openFiles.keys().next();
    if (this.#openFiles.size >= OPEN_FILES_MAX && !oldest.done) this.#shut(oldest.value);
  }

  #shut(index: number): void {
    const fd = this.#openFiles.get(index);
    this.#openFiles.delete(index);
    if (fd !== undefined) closeFd(fd);
  }

  #without(name: string): void {
    try {
      removeXattr(this.#folder, pathBytes(name));
    } catch (error) {
      if (!isErrno(error, "ENODATA", "EOPNOTSUPP", "EPERM", "EACCES", "EINVAL")) throw error;
    }
  }

  /**
   * All content is there: owner first, since it takes the set-id bits and a capability away. Then extended attributes,
   * which a user that is not root cannot set on a file that its mode protects from writing; then mode and times.
   */
  #complete(index: number, file: PendingFile): void {
    const { entry } = file;
    const fd = this.#open(index, file);
    const owned = this.#allowed("owner", entry.path, () => setOwnerFd(fd, entry.uid, entry.gid, entry.path));
    this.#xattrs(entry, fd);
    const mode = owned ? entry.mode : entry.mode & ~SET_ID_BITS;
    this.#allowed("mode", entry.path, () => setModeFd(fd, mode, entry.path));
    this.#allowed("time", entry.path, () => setTimesFd(fd, entry.mtimeNs, entry.path));
    if (entry.size >= SYNC_ALONE_BYTES) syncFd(fd, entry.path);
    this.#shut(index);
    this.#pending.delete(index);
  }

  /** Attributes by name, for all that is no regular file. */
  #attributes(entry: TreeEntry): void {
    const path = entry.path.length === 0 ? DOT : entry.path;
    const folder = this.#folder;
    const owned = this.#allowed("owner", entry.path, () => setOwnerAt(folder, path, entry.uid, entry.gid));
    if (entry.xattrs !== undefined) this.#xattrsByName(entry);
    if (entry.type !== "symlink") {
      const mode = owned ? entry.mode : entry.mode & ~SET_ID_BITS;
      this.#allowed("mode", entry.path, () => setModeAt(folder, path, mode));
    }
    this.#allowed("time", entry.path, () => setTimesAt(folder, path, entry.mtimeNs));
  }

  #xattrsByName(entry: TreeEntry): void {
    if (entry.path.length === 0) return this.#xattrs(entry, this.#folder);
    const cut = entry.path.lastIndexOf(0x2f);
    const folder = cut < 0 ? DOT : entry.path.slice(0, cut);
    const folderFd = openAt(this.#folder, folder, OPEN.read | OPEN.directory);
    try {
      this.#xattrs(entry, { folderFd, name: entry.path.slice(cut + 1) });
    } finally {
      closeFd(folderFd);
    }
  }

  #xattrs(entry: TreeEntry, place: XattrPlace): void {
    for (const { name, value } of entry.xattrs ?? []) {
      const set = () => setXattr(place, bytesOf(name), value);
      this.#allowed(xattrKind(name), entry.path, set, XATTR_REFUSALS);
    }
  }

  /**
   * Does what a user without the right, or a poorer filesystem, may refuse: counted, never a failure. EINVAL is an
   * owner that a user namespace does not map. A file whose owner could not be set must not get set-id bits: they
   * would lend our own rights instead of the owner's.
   */
  #allowed(
    what: string,
    path: PathBytes,
    action: () => void,
    refusals: readonly string[] = REFUSALS,
  ): boolean {
    try {
      action();
      return true;
    } catch (error) {
      if (!isErrno(error, ...refusals)) throw error;
      const seen = this.#refused.get(what);
      if (seen === undefined) this.#refused.set(what, { first: path, count: 1 });
      else seen.count++;
      return false;
    }
  }

  /**
   * Hard links, then the folders' attributes from the bottom up (making things in them changed their times), then
   * one sync of the filesystem. When it returns, the stage is complete and durable.
   */
  finish(): FileWarning[] {
    const [waiting] = this.#wanted.keys();
    if (waiting !== undefined) {
      throw new StateManagerError(
        "data-damaged",
        `restore files "${this.#options.root}": ${this.#wanted.size} chunks are missing, the first is ${waiting}`,
        { hint: "run a verify of the checkpoint; restore another one meanwhile" },
      );
    }
    this.#linkAll();
    for (let index = this.#entries.length - 1; index >= 0; index--) {
      const entry = this.#entries[index]?.entry;
      if (entry?.type === "directory") this.#attributes(entry);
    }
    syncFilesystem(this.#folder, this.#target);
    this.close();
    for (const [what, { first, count }] of this.#refused) {
      const reason = `${what} not set, here and on ${
        count - 1
      } others: not permitted, or not known to this filesystem`;
      this.#warnings.push({ root: this.#options.root, path: showPath(first), reason });
    }
    return this.#warnings;
  }

  #linkAll(): void {
    const carriers = new Map<number, TreeEntry>();
    for (const { entry } of this.#entries) {
      if (entry.type !== "file" || entry.linkGroup === undefined) continue;
      const carrier = carriers.get(entry.linkGroup);
      if (carrier === undefined) carriers.set(entry.linkGroup, entry);
      else this.#link(carrier, entry);
    }
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
      const file = { entry: { ...entry, size }, missing: 0, created: false, held: NOTHING };
      const to = this.#open(-1, file);
      const buffer = new Uint8Array(COPY_BYTES);
      for (let at = 0; at < size;) {
        const count = readAt(from, buffer, at);
        if (count === 0) break;
        writeAt(to, buffer.subarray(0, count), at, entry.path);
        at += count;
      }
      this.#complete(-1, file);
    } finally {
      closeFd(from);
    }
  }

  /** Closes what is open; the stage itself stays for the caller to swap in or delete. */
  close(): void {
    for (const index of [...this.#openFiles.keys()]) this.#shut(index);
    if (this.#folder >= 0) closeFd(this.#folder);
    this.#folder = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const DOT = pathBytes(".");
