/** A live folder, and a restored tree staged for it: the scene of every swap test. */

import { findSwapPlace, type SwapPlace } from "../../src/checkpoint/swap_place.ts";
import type { FilesRoot } from "../../src/checkpoint/types.ts";
import { captureTree, filesRoot, stageCaptured } from "./tree_capture.ts";
import { hashTree } from "./tree_model.ts";

export interface SwapScene {
  readonly folder: string;
  readonly root: FilesRoot;
  readonly place: SwapPlace;
  readonly journalPath: string;
  /** Only these of the staged tree; left out: all. */
  readonly paths?: readonly string[];
  /** Lines of the tree that was staged. */
  readonly wanted: readonly string[];
}

export const RESTORE_ID = "01test";

export function writeTree(
  folder: string,
  files: Readonly<Record<string, string>>,
): void {
  for (const [path, text] of Object.entries(files)) {
    const cut = path.lastIndexOf("/");
    Deno.mkdirSync(`${folder}/${path.slice(0, Math.max(0, cut))}`, {
      recursive: true,
    });
    Deno.writeTextFileSync(`${folder}/${path}`, text);
  }
}

export const OLD_FILES = {
  "same": "old",
  "only-old": "old",
  "a/x": "old",
  "a/b/y": "old",
  "a/b/c/z": "old",
};
export const NEW_FILES = {
  "same": "new",
  "only-new": "new",
  "a/x": "new",
  "a/b/new": "new",
  "d/e/f": "new",
};

/** `folder` is empty and for the scene alone; the live root is `folder`/live unless another is given. */
export async function stagedScene(
  folder: string,
  options: {
    readonly live?: string;
    readonly exclude?: readonly string[];
    readonly keep?: readonly string[];
  } = {},
): Promise<SwapScene> {
  const source = `${folder}/source`;
  Deno.mkdirSync(source, { recursive: true });
  writeTree(source, NEW_FILES);
  Deno.chmodSync(source, 0o1751);
  Deno.utimeSync(source, 1000, 1000);
  const root = filesRoot(options.live ?? `${folder}/live`, {
    exclude: options.exclude ?? [],
    excludePaths: options.keep ?? [],
  });
  const tree = captureTree(filesRoot(source));
  const place = await findSwapPlace(root, RESTORE_ID);
  await stageCaptured(tree, place.stage);
  return {
    folder,
    root,
    place,
    journalPath: `${folder}/swap.json`,
    wanted: (await hashTree(source)).lines,
  };
}

/** Every file below `folder` with its text, our own folders left out. */
export function readTree(folder: string, prefix = ""): Record<string, string> {
  const files: Record<string, string> = {};
  for (const { name, isDirectory } of Deno.readDirSync(`${folder}/${prefix}`)) {
    if (name.startsWith(".sm-")) continue;
    if (isDirectory) {
      Object.assign(files, readTree(folder, `${prefix}${name}/`));
    } else {files[prefix + name] = Deno.readTextFileSync(
        `${folder}/${prefix}${name}`,
      );}
  }
  return files;
}
