/** Local files that fail as told, for tests and the simulator. Deterministic: rules count operations, nothing else. */

import type { Clock } from "./clock.ts";
import { type ActiveFault, type FaultMatch, FaultRules } from "./fault_rules.ts";
import {
  type FileErrno,
  fileError,
  type FileOperation,
  isChanging,
  type LocalFiles,
  type ReadableFile,
  type WritableFile,
} from "./local_files.ts";

export interface FileFaultRule extends FaultMatch<FileOperation> {
  /** Of a rename or link: of the new name. */
  readonly pathPrefix?: string;
  /** true: only operations that change something. */
  readonly changing?: boolean;
  /** The error; left out: the operation goes on (delayed, or short). */
  readonly errno?: FileErrno;
  /** "before": nothing happens. "after": it happens and fails all the same. Default "before". */
  readonly when?: "before" | "after";
  /** Of a write: so many bytes at most are taken, then the error, if any: a short write, or a torn one. */
  readonly takes?: number;
  readonly delayMs?: number;
  /** The process dies there: this operation and every later one throws `Crash`. */
  readonly crash?: boolean;
}

/** Thrown in place of every operation of a process that is dead. */
export class Crash extends Error {
  constructor() {
    super("the process of this test is dead");
  }
}

export interface FaultyFiles extends LocalFiles {
  inject(rule: FileFaultRule): ActiveFault;
  readonly crashed: boolean;
}

export function faultyFiles(
  files: LocalFiles,
  options: { readonly clock?: Clock; readonly rules?: readonly FileFaultRule[] } = {},
): FaultyFiles {
  const rules = new FaultRules<FileOperation, FileFaultRule>((rule, operation, path) =>
    path.startsWith(rule.pathPrefix ?? "") && (rule.changing !== true || isChanging(operation))
  );
  for (const rule of options.rules ?? []) rules.add(rule);
  let crashed = false;

  async function perform<T>(
    operation: FileOperation,
    path: string,
    call: (rule: FileFaultRule | undefined) => Promise<T>,
  ): Promise<T> {
    if (crashed) throw new Crash();
    const rule = rules.strike(operation, path);
    if (rule?.delayMs !== undefined) await options.clock?.sleep(rule.delayMs);
    const fails = rule !== undefined && (rule.errno !== undefined || rule.crash === true);
    if (!fails) return await call(rule);
    if (rule.when === "after" || (operation === "write" && rule.takes !== undefined)) await call(rule);
    if (rule.crash === true) {
      crashed = true;
      throw new Crash();
    }
    throw fileError(rule.errno ?? "EIO", `${operation} '${path}'`);
  }

  function readable(path: string, file: ReadableFile): ReadableFile {
    return {
      facts: () => perform("stat", path, () => file.facts()),
      read: (target, position) => perform("read", path, () => file.read(target, position)),
      [Symbol.dispose]: () => file[Symbol.dispose](),
    };
  }

  function writable(path: string, file: WritableFile): WritableFile {
    return {
      facts: () => perform("stat", path, () => file.facts()),
      write: (bytes) => perform("write", path, (rule) => file.write(bytes.subarray(0, rule?.takes))),
      sync: () => perform("sync", path, () => file.sync()),
      [Symbol.dispose]: () => file[Symbol.dispose](),
    };
  }

  return {
    get crashed() {
      return crashed;
    },
    inject: (rule) => rules.add(rule),
    stat: (path) => perform("stat", path, () => files.stat(path)),
    open: (path, options) =>
      perform("open", path, async () => readable(path, await files.open(path, options))),
    create: (path, mode, options) =>
      perform("create", path, async () => writable(path, await files.create(path, mode, options))),
    list: (path) => perform("list", path, () => files.list(path)),
    makeFolder: (path, mode) => perform("makeFolder", path, () => files.makeFolder(path, mode)),
    changeMode: (path, mode) => perform("changeMode", path, () => files.changeMode(path, mode)),
    rename: (from, to) => perform("rename", to, () => files.rename(from, to)),
    link: (from, to) => perform("link", to, () => files.link(from, to)),
    remove: (path) => perform("remove", path, () => files.remove(path)),
    removeTree: (path) => perform("removeTree", path, () => files.removeTree(path)),
    syncFolder: (path) => perform("syncFolder", path, () => files.syncFolder(path)),
  };
}
