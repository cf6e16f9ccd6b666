/**
 * A disk in memory that tells what was synced from what was only written, for tests and the simulator. A power cut
 * keeps of the rest whatever POSIX allows: of each file its synced content, what was written since, a part of it or
 * zeros of its length; of each folder any of the names that were made, moved or removed since its last sync.
 */

import {
  type FileEntry,
  fileError,
  type FileFacts,
  type LocalFiles,
  type ReadableFile,
  type WritableFile,
} from "./local_files.ts";
import type { Random } from "./random.ts";

type Bytes = Uint8Array<ArrayBuffer>;

interface PlainFile {
  readonly kind: "file";
  readonly inode: number;
  content: Bytes;
  synced: Bytes;
  modifiedMs: number;
}

/** One change of a folder's names, whole or not at all: a rename within a folder is one. */
type Change = readonly { readonly name: string; readonly node: Node | null }[];

interface Folder {
  readonly kind: "folder";
  readonly inode: number;
  names: Map<string, Node>;
  synced: Map<string, Node>;
  pending: Change[];
  readonly modifiedMs: number;
}

type Node = PlainFile | Folder;

/** Of the changes since the last sync, in order: what a journal does, or any of them. */
type Fate = "prefix" | "any";

export class MemoryDisk implements LocalFiles {
  readonly #wallMs: () => number;
  #inodes = 1;
  #root: Folder;
  /** Grows with each power cut: a file that was open before is dead. */
  #life = 0;

  /** `wallMs` gives the files' times. */
  constructor(wallMs: () => number = () => 0) {
    this.#wallMs = wallMs;
    this.#root = this.#newFolder();
  }

  #newFolder(): Folder {
    const names = new Map<string, Node>();
    const synced = new Map<string, Node>();
    return { kind: "folder", inode: ++this.#inodes, names, synced, pending: [], modifiedMs: this.#wallMs() };
  }

  /** The power fails and comes back: nothing that was not synced can be relied on. */
  powerCut(random: Random): void {
    this.#life++;
    const done = new Map<Node, Node>();
    this.#root = this.#folderAfterCut(this.#root, random, done);
  }

  #folderAfterCut(folder: Folder, random: Random, done: Map<Node, Node>): Folder {
    const after = { ...folder, names: new Map<string, Node>(), synced: new Map<string, Node>(), pending: [] };
    done.set(folder, after);
    const names = new Map(folder.synced);
    for (const change of survivors(folder.pending, random)) apply(names, change);
    for (const [name, node] of names) {
      const kept = done.get(node) ??
        (node.kind === "folder"
          ? this.#folderAfterCut(node, random, done)
          : fileAfterCut(node, random, done));
      after.names.set(name, kept);
      after.synced.set(name, kept);
    }
    return after;
  }

  #find(path: string, action: string): Node {
    let node: Node = this.#root;
    for (const name of path.split("/").filter((part) => part !== "")) {
      if (node.kind !== "folder") throw fileError("ENOTDIR", `${action} '${path}'`);
      const next = node.names.get(name);
      if (next === undefined) throw fileError("ENOENT", `${action} '${path}'`);
      node = next;
    }
    return node;
  }

  #folderAt(path: string, action: string): Folder {
    const node = this.#find(path, action);
    if (node.kind !== "folder") throw fileError("ENOTDIR", `${action} '${path}'`);
    return node;
  }

  #place(path: string, action: string): { folder: Folder; name: string; node: Node | null } {
    const cut = path.lastIndexOf("/");
    const folder = this.#folderAt(path.slice(0, cut), action);
    const name = path.slice(cut + 1);
    return { folder, name, node: folder.names.get(name) ?? null };
  }

  #facts(node: Node): FileFacts {
    const { kind, inode, modifiedMs } = node;
    return { kind, inode, modifiedMs, sizeBytes: node.kind === "file" ? node.content.length : 0 };
  }

  // One turn of the loop passes before each: callers that run at once get mixed, as they would on a disk.

  async stat(path: string): Promise<FileFacts> {
    await null;
    return this.#facts(this.#find(path, "stat"));
  }

  async open(path: string): Promise<ReadableFile> {
    await null;
    const node = this.#find(path, "open");
    return {
      facts: () => Promise.resolve(this.#facts(node)),
      async read(target, position) {
        await null;
        if (node.kind !== "file") throw fileError("EISDIR", `read '${path}'`);
        const part = node.content.subarray(position, position + target.length);
        target.set(part);
        return part.length === 0 ? null : part.length;
      },
      [Symbol.dispose]() {},
    };
  }

  async create(path: string, _mode: number): Promise<WritableFile> {
    await null;
    const { folder, name, node } = this.#place(path, "create");
    if (node !== null) throw fileError("EEXIST", `create '${path}'`);
    const [content, synced] = [new Uint8Array(), new Uint8Array()];
    const file: PlainFile = {
      kind: "file",
      inode: ++this.#inodes,
      content,
      synced,
      modifiedMs: this.#wallMs(),
    };
    change(folder, [{ name, node: file }]);
    const life = this.#life;
    const alive = async () => {
      await null;
      if (life !== this.#life) throw fileError("EIO", `use '${path}' after a power cut`);
    };
    return {
      facts: () => Promise.resolve(this.#facts(file)),
      write: async (bytes) => {
        await alive();
        const longer = new Uint8Array(file.content.length + bytes.length);
        longer.set(file.content);
        longer.set(bytes, file.content.length);
        file.content = longer;
        file.modifiedMs = this.#wallMs();
        return bytes.length;
      },
      sync: async () => {
        await alive();
        file.synced = file.content;
      },
      [Symbol.dispose]() {},
    };
  }

  async list(path: string): Promise<FileEntry[]> {
    await null;
    return [...this.#folderAt(path, "list").names].map(([name, { kind }]) => ({ name, kind }));
  }

  async makeFolder(path: string, _mode: number): Promise<void> {
    await null;
    const { folder, name, node } = this.#place(path, "mkdir");
    if (node !== null) throw fileError("EEXIST", `mkdir '${path}'`);
    change(folder, [{ name, node: this.#newFolder() }]);
  }

  async changeMode(path: string, _mode: number): Promise<void> {
    await null;
    this.#find(path, "chmod");
  }

  async rename(from: string, to: string): Promise<void> {
    await null;
    const source = this.#place(from, "rename");
    const target = this.#place(to, "rename");
    if (source.node === null) throw fileError("ENOENT", `rename '${from}'`);
    if (source.node === target.node) return;
    if (target.node?.kind === "folder" && target.node.names.size > 0) {
      throw fileError("ENOTEMPTY", `rename '${to}'`);
    }
    const gone = { name: source.name, node: null };
    const come = { name: target.name, node: source.node };
    if (source.folder === target.folder) change(source.folder, [gone, come]);
    else {
      change(target.folder, [come]);
      change(source.folder, [gone]);
    }
  }

  async link(from: string, to: string): Promise<void> {
    await null;
    const node = this.#find(from, "link");
    const target = this.#place(to, "link");
    if (target.node !== null) throw fileError("EEXIST", `link '${to}'`);
    if (node.kind === "folder") throw fileError("EPERM", `link '${from}'`);
    change(target.folder, [{ name: target.name, node }]);
  }

  async remove(path: string): Promise<void> {
    await null;
    const { folder, name, node } = this.#place(path, "remove");
    if (node === null) throw fileError("ENOENT", `remove '${path}'`);
    if (node.kind === "folder" && node.names.size > 0) throw fileError("ENOTEMPTY", `remove '${path}'`);
    change(folder, [{ name, node: null }]);
  }

  async removeTree(path: string): Promise<void> {
    const node = this.#find(path, "remove");
    if (node.kind === "folder") {
      for (const name of [...node.names.keys()]) await this.removeTree(`${path}/${name}`);
    }
    await this.remove(path);
  }

  async syncFolder(path: string): Promise<void> {
    await null;
    const folder = this.#folderAt(path, "sync");
    folder.synced = new Map(folder.names);
    folder.pending = [];
  }
}

function apply(names: Map<string, Node>, changes: Change): void {
  for (const { name, node } of changes) {
    if (node === null) names.delete(name);
    else names.set(name, node);
  }
}

function change(folder: Folder, changes: Change): void {
  apply(folder.names, changes);
  folder.pending.push(changes);
}

function survivors(pending: readonly Change[], random: Random): readonly Change[] {
  const fate: Fate = random.float() < 0.5 ? "prefix" : "any";
  if (fate === "prefix") return pending.slice(0, Math.floor(random.float() * (pending.length + 1)));
  return pending.filter(() => random.float() < 0.5);
}

function fileAfterCut(file: PlainFile, random: Random, done: Map<Node, Node>): PlainFile {
  const content = contentAfterCut(file, random);
  const after: PlainFile = { ...file, content, synced: content };
  done.set(file, after);
  return after;
}

function contentAfterCut({ content, synced }: PlainFile, random: Random): Bytes {
  if (content === synced) return content;
  const length = content.length;
  switch (Math.floor(random.float() * 4)) {
    case 0:
      return synced;
    case 1:
      return content;
    case 2: {
      const part = synced.length + Math.floor(random.float() * (length - synced.length + 1));
      return content.slice(0, part);
    }
    default: {
      const zeros = new Uint8Array(length); // the length became durable, the bytes did not
      zeros.set(synced);
      return zeros;
    }
  }
}
