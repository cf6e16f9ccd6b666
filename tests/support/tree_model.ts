/**
 * Random trees with everything a files root can hold, and the hash of a tree as find and sha256sum see it, so that
 * what was restored is compared by programs that share no code with the restore.
 */

import { createHash } from "node:crypto";
import {
  closeFd,
  makeFifoAt,
  makeFolderAt,
  makeHardLinkAt,
  makeSymlinkAt,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  setModeAt,
  setOwnerAt,
  setTimesAt,
  truncateFd,
  withFolder,
  writeAt,
} from "../../src/platform/libc_files.ts";
import { joinPath } from "../../src/checkpoint/byte_text.ts";
import { listTree } from "./tree_listing.ts";

export interface TreeOptions {
  readonly seed: number;
  /** Regular files, about; folders, links and the like come on top. */
  readonly files: number;
  /** Also gives things away to other owners. */
  readonly asRoot: boolean;
}

/** mulberry32: small, seeded, good enough to vary a tree. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

interface Making {
  readonly rootFd: number;
  readonly options: TreeOptions;
  readonly random: () => number;
  readonly folders: PathBytes[];
  readonly files: PathBytes[];
  count: number;
}

const FILES_PER_FOLDER = 40;
const MODES = [
  0o644,
  0o600,
  0o755,
  0o444,
  0o4755,
  0o2755,
  0o6711,
  0o640,
  0o400,
];
const FOLDER_MODES = [0o755, 0o700, 0o1777, 0o2775, 0o750];
const EPOCH_NS = 1_700_000_000_000_000_000n;

/** Fills the existing folder `root`; the same seed makes the same tree, times included. */
export function makeTree(root: string, options: TreeOptions): void {
  withFolder(pathBytes(root), (rootFd) => {
    const random = seededRandom(options.seed);
    const making: Making = {
      rootFd,
      options,
      random,
      folders: [new Uint8Array(0)],
      files: [],
      count: 0,
    };
    makeFolders(making);
    for (let i = 0; i < options.files; i++) makeFile(making);
    makeLinks(making);
    makeOddities(making);
    // Times last and from the bottom: making anything in a folder moves its time.
    for (const folder of making.folders.reverse()) {
      setAttributes(making, folder, pick(making, FOLDER_MODES));
    }
  });
}

function pick<T>({ random }: Making, list: readonly T[]): T {
  const index = Math.floor(random() * list.length);
  const item = list[index];
  if (item === undefined) throw new Error("pick from an empty list");
  return item;
}

/** Plain, with odd characters, not UTF-8, or 255 bytes long. */
function newName(making: Making): PathBytes {
  const stem = `n${making.count++}`;
  const kind = making.random();
  if (kind < 0.75) {
    return pathBytes(stem + pick(making, ["", ".txt", "-a", ".b", "_c"]));
  }
  if (kind < 0.85) {
    return pathBytes(
      stem + pick(making, ["ä€", " blank", "new\nline", "'\"", "\\", "*?"]),
    );
  }
  if (kind < 0.95) {
    return Uint8Array.from([...pathBytes(stem), 0xff, 0x80, 0xc3]);
  }
  return pathBytes(stem.padEnd(255, "x"));
}

function newPath(making: Making): PathBytes {
  return joinPath(pick(making, making.folders), newName(making));
}

function makeFolders(making: Making): void {
  const wanted = Math.max(
    4,
    Math.floor(making.options.files / FILES_PER_FOLDER),
  );
  for (let i = 0; i < wanted; i++) {
    const path = newPath(making);
    if (path.length > 1000) continue;
    makeFolderAt(making.rootFd, path, 0o700);
    making.folders.push(path);
  }
  let deep = new Uint8Array(0);
  for (let depth = 0; depth < 30; depth++) {
    deep = joinPath(deep, pathBytes(`deep${depth}`));
    makeFolderAt(making.rootFd, deep, 0o700);
    making.folders.push(deep);
  }
}

function setAttributes(making: Making, path: PathBytes, mode: number): void {
  const name = path.length === 0 ? pathBytes(".") : path;
  const { random, rootFd } = making;
  if (making.options.asRoot) {
    setOwnerAt(
      rootFd,
      name,
      Math.floor(random() * 70000),
      Math.floor(random() * 70000),
    );
  }
  setModeAt(rootFd, name, mode);
  setTimesAt(rootFd, name, randomTime(making));
}

function randomTime({ random }: Making): bigint {
  const before1970 = random() < 0.05;
  const time = BigInt(Math.floor(random() * 2 ** 48)) * 1000n +
    BigInt(Math.floor(random() * 1000));
  return before1970 ? -time : EPOCH_NS + time % 100_000_000_000_000_000n;
}

function makeFile(making: Making): void {
  const path = newPath(making);
  const { random } = making;
  const fd = openAt(
    making.rootFd,
    path,
    OPEN.write | OPEN.create | OPEN.exclusive,
  );
  try {
    const kind = random();
    if (kind < 0.1) return; // empty
    const size = Math.floor(kind < 0.95 ? random() * 6000 : random() * 400_000);
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i++) {
      bytes[i] = kind < 0.5 ? 97 + i % 23 : Math.floor(random() * 256);
    }
    writeAt(fd, bytes, 0, path);
  } finally {
    closeFd(fd);
    setAttributes(making, path, pick(making, MODES));
    making.files.push(path);
  }
}

function makeLinks(making: Making): void {
  const { options, rootFd, files } = making;
  for (let i = 0; i < Math.max(3, options.files / 50); i++) {
    const group = pick(making, files);
    makeHardLinkAt(rootFd, group, rootFd, newPath(making));
    const link = newPath(making);
    const targets = [
      group,
      pathBytes("/nowhere/at all"),
      Uint8Array.from([0xfe, 0x2f, 0xff]),
      pathBytes(".."),
    ];
    makeSymlinkAt(pick(making, targets), rootFd, link);
    if (options.asRoot) setOwnerAt(rootFd, link, 1000 + i, 2000 + i);
    setTimesAt(rootFd, link, randomTime(making));
  }
}

/** Holes at each place, a fifo, and an empty folder. */
function makeOddities(making: Making): void {
  const { rootFd } = making;
  const holes: readonly [string, number, readonly number[]][] = [
    ["hole-all", 5_000_000, []],
    ["hole-begin", 3_000_000, [2_900_000]],
    ["hole-end", 3_000_000, [0]],
    ["hole-between", 9_000_000, [0, 4_000_000, 8_500_000]],
  ];
  for (const [name, size, data] of holes) {
    const path = pathBytes(name);
    const fd = openAt(rootFd, path, OPEN.write | OPEN.create | OPEN.exclusive);
    truncateFd(fd, size, path);
    for (const offset of data) {
      writeAt(fd, new Uint8Array(10_000).fill(7), offset, path);
    }
    closeFd(fd);
    setAttributes(making, path, 0o644);
  }
  makeFifoAt(rootFd, pathBytes("fifo"), 0o600);
  setAttributes(making, pathBytes("fifo"), 0o620);
  makeFolderAt(rootFd, pathBytes("empty"), 0o700);
  making.folders.push(pathBytes("empty"));
}

export interface HashOptions {
  /** Paths (latin1, relative) that do not count, with all below them. */
  readonly ignore?: readonly string[];
}

/** One hash over the whole tree, and its lines for a readable difference. */
export async function hashTree(
  root: string,
  options: HashOptions = {},
): Promise<{ readonly hash: string; readonly lines: readonly string[] }> {
  const ignored = options.ignore ?? [];
  const lines = (await listTree(root)).filter((line) =>
    !ignored.some((path) => line.startsWith(path + " ") || line.startsWith(path + "/"))
  );
  return {
    hash: createHash("sha256").update(lines.join("\n")).digest("hex"),
    lines,
  };
}

/** Removes a tree that may hold folders without rights and names that are no text. */
export async function removeTree(root: string): Promise<void> {
  await new Deno.Command("rm", { args: ["-rf", root] }).output();
}

/** A new empty folder under the temporary one, removed when the scope ends. */
export function scratchFolder(
  prefix: string,
): { readonly path: string; [Symbol.asyncDispose](): Promise<void> } {
  const path = Deno.makeTempDirSync({ prefix });
  return { path, [Symbol.asyncDispose]: () => removeTree(path) };
}
