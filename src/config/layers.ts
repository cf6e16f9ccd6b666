/** Lays fallback, file, variables and flags over each other and remembers which of them set each key. */

import type { KeyPath, Problem } from "./problems.ts";
import { jsonPointer } from "./problems.ts";
import type { Setting } from "./flags.ts";

export type LayerName = "default" | "fallback" | "file" | "environment" | "flags";

/** Which layer set a key, and by what: a file's path, a variable, a flag. */
export interface Origin {
  readonly layer: LayerName;
  readonly source: string;
}

type Tree = Readonly<Record<string, unknown>>;

export interface Layered {
  readonly value: unknown;
  /** By dotted key of every value that is not an object. */
  readonly origins: Readonly<Record<string, Origin>>;
}

export interface LayerInput {
  /** The file's value, expanded, or the API's body; undefined: none. */
  readonly file: { readonly value: unknown; readonly source: string } | null;
  readonly fallback: readonly Setting[];
  readonly environment: readonly Setting[];
  readonly flags: readonly Setting[];
}

function isTree(value: unknown): value is Tree {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Maps that a flag or variable replaces as a whole: `run -- COMMAND` runs exactly that command. */
const REPLACED_WHOLE = ["processes"];

/** Lays `value` over `tree` at `path`. A section that is no object stays, so that the schema can say so. */
function laid(tree: unknown, path: KeyPath, value: unknown): unknown {
  const [part, ...rest] = path;
  if (part === undefined) {
    if (!isTree(value)) return value;
    if (!isTree(tree)) return tree ?? value;
    const merged: Record<string, unknown> = { ...tree };
    for (const [key, inner] of Object.entries(value)) merged[key] = laid(tree[key], [], inner);
    return merged;
  }
  if (tree !== undefined && !isTree(tree)) return tree;
  return { ...tree, [part]: laid(tree?.[part], rest, value) };
}

function drop(tree: unknown, section: string, keys: readonly string[]): unknown {
  if (!isTree(tree) || !isTree(tree[section])) return tree;
  const kept = Object.entries(tree[section]).filter(([key]) => !keys.includes(key));
  return { ...tree, [section]: Object.fromEntries(kept) };
}

function has(tree: unknown, section: string, key: string): boolean {
  return isTree(tree) && isTree(tree[section]) && tree[section][key] !== undefined;
}

/** What only a bucket has, and what only a folder store has: a layer that chooses one hides the other below it. */
const BUCKET_KEYS = [
  "bucket",
  "endpoint",
  "region",
  "access_key",
  "secret_key",
  "session_token",
  "force_path_style",
];

function storeKind(layer: unknown): "directory" | "bucket" | "both" | null {
  const folder = has(layer, "storage", "directory");
  const bucket = has(layer, "storage", "bucket");
  return folder && bucket ? "both" : folder ? "directory" : bucket ? "bucket" : null;
}

/** The layers with the other kind's keys gone below the topmost layer that chooses one. */
function withOneStore<Layer extends { readonly tree: unknown }>(layers: readonly Layer[]): Layer[] {
  const top = layers.findLastIndex(({ tree }) => storeKind(tree) !== null);
  const kind = storeKind(layers[top]?.tree);
  const hidden = kind === "directory" ? [...BUCKET_KEYS, "ca_file"] : kind === "bucket" ? ["directory"] : [];
  return layers.map((layer, index) =>
    index < top ? { ...layer, tree: drop(layer.tree, "storage", hidden) } : layer
  );
}

function treeOf(settings: readonly Setting[]): unknown {
  return settings.reduce<unknown>((tree, { path, value }) => laid(tree, path, value), {});
}

function leaves(value: unknown, path: KeyPath = []): KeyPath[] {
  if (!isTree(value) || Object.keys(value).length === 0) return path.length === 0 ? [] : [path];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]));
}

/** The raw configuration of all layers together. Bucket fallbacks count only where no layer names a folder store. */
export function layered(input: LayerInput): Layered {
  const layers: { name: LayerName; tree: unknown; sourceOf: (path: KeyPath) => string }[] = [
    { name: "fallback", tree: treeOf(input.fallback), sourceOf: settingSource(input.fallback) },
    ...(input.file === null
      ? []
      : [{ name: "file" as const, tree: input.file.value, sourceOf: constant(input.file.source) }]),
    { name: "environment", tree: treeOf(input.environment), sourceOf: settingSource(input.environment) },
    { name: "flags", tree: treeOf(input.flags), sourceOf: settingSource(input.flags) },
  ];
  let value: unknown = {};
  const set = new Map<string, Origin>();
  for (const { name, tree, sourceOf } of withOneStore(layers)) {
    if (name !== "fallback" && name !== "file" && isTree(tree)) {
      for (const key of REPLACED_WHOLE) {
        if (isTree(value) && tree[key] !== undefined) value = { ...value, [key]: {} };
      }
    }
    value = isTree(tree) ? laid(value, [], tree) : tree;
    for (const path of leaves(tree)) set.set(path.join("."), { layer: name, source: sourceOf(path) });
  }
  const origins: Record<string, Origin> = {};
  for (const path of leaves(value)) {
    const origin = set.get(path.join("."));
    if (origin !== undefined) origins[path.join(".")] = origin;
  }
  return { value, origins };
}

function constant(source: string): (path: KeyPath) => string {
  return () => source;
}

function settingSource(settings: readonly Setting[]): (path: KeyPath) => string {
  return (path) => {
    const match = settings.findLast((setting) => setting.path.every((part, index) => path[index] === part));
    return match?.source ?? "";
  };
}

/** Where a person finds what is wrong: the variable or flag that set it, else the key in the file. */
export function pointerOf(problem: Problem, origins: Readonly<Record<string, Origin>>): string {
  if (typeof problem.at === "string") return problem.at;
  for (let length = problem.at.length; length > 0; length--) {
    const key = problem.at.slice(0, length).join(".");
    const origin = Object.hasOwn(origins, key) ? origins[key] : undefined;
    if (origin !== undefined && origin.layer !== "file") return origin.source;
    if (origin !== undefined) return jsonPointer(problem.at);
  }
  // A whole section: named by what set it, if that was one flag or variable.
  const prefix = `${problem.at.join(".")}.`;
  const inside = Object.entries(origins).flatMap(([key, origin]) => key.startsWith(prefix) ? [origin] : []);
  const [first] = inside;
  if (first === undefined || first.layer === "file") return jsonPointer(problem.at);
  return inside.every(({ source }) => source === first.source) ? first.source : jsonPointer(problem.at);
}
