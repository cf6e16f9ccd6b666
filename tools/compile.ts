/**
 * `deno task compile [--output path] [--readable]`: main.ts, the archiver, the guard, the follower, `restore --to` and every Worker bundled to dist/, then one binary from these bundles.
 * Bundled first because `deno compile` embeds every package of the lockfile, reachable or not, in each process's memory.
 * The libsql add-on goes in compressed, behind a loader that unpacks it at first use: most processes never need it.
 *
 * Environment: DENORT_BIN, STATE_MANAGER_COMPILE_DENO (both default to .cache/; without a denort the running deno
 * compiles for itself).
 */

import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import zlib from "node:zlib";
import { FIRST_HEAP_MIB } from "../src/platform/heap.ts";

const root = new URL("../", import.meta.url).pathname;
const dist = `${root}dist`;

/** The manager stays far below; a leak must end in a restart by the platform, not in an out-of-memory kill of its neighbours. */
const HEAP_LIMIT_MIB = 512;
/** Of each thread's young objects; the default of 16 costs a checkpoint 60 MB more and is not faster. */
const YOUNG_HEAP_MIB = 4;
const V8_FLAGS = [
  "--expose-gc",
  `--initial-old-space-size=${FIRST_HEAP_MIB}`,
  `--max-old-space-size=${HEAP_LIMIT_MIB}`,
  `--max-semi-space-size=${YOUNG_HEAP_MIB}`,
];
/** deno compile recurses over some module graphs deeper than a thread's default stack. */
const COMPILER_STACK_BYTES = 16 << 20;
const ZSTD_LEVEL = 19;

const BUILD_MARK = "state-manager-build:dev";

function say(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${text}\n`));
}

function fail(text: string): never {
  say(text);
  Deno.exit(1);
}

async function run(
  command: string,
  args: readonly string[],
  { env = {}, cwd = root }: { readonly env?: Record<string, string>; readonly cwd?: string } = {},
): Promise<void> {
  const child = new Deno.Command(command, {
    args: [...args],
    cwd,
    env,
    stdin: "null",
    stdout: "inherit",
  });
  const { code } = await child.spawn().status;
  if (code !== 0) fail(`compile: ${command} ${args[0]} ended with ${code}`);
}

async function outputOf(command: string, args: readonly string[]): Promise<string | undefined> {
  try {
    const { success, stdout } = await new Deno.Command(command, {
      args: [...args],
      cwd: root,
      stderr: "null",
    }).output();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch {
    return undefined;
  }
}

async function isFile(path: string): Promise<boolean> {
  return await Deno.stat(path).then((info) => info.isFile, () => false);
}

/** Paths of all TypeScript files below `folder`, relative to the root. */
async function* sources(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(root + folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* sources(path);
    else if (path.endsWith(".ts") || path.endsWith(".tsx")) yield path;
  }
}

/** What the program finds by `workerUrl("…")` and `assetUrl("…")`: the calls are the list. */
async function entries(): Promise<{ workers: string[]; assets: string[] }> {
  const workers = new Set<string>();
  const assets = new Set<string>();
  for await (const path of sources("src")) {
    const text = await Deno.readTextFile(root + path);
    for (const match of text.matchAll(/\bworkerUrl\("([^"]+)"\)/g)) workers.add(match[1] ?? "");
    for (const match of text.matchAll(/\bassetUrl\("([^"]+)"\)/g)) assets.add(match[1] ?? "");
  }
  return { workers: [...workers].sort(), assets: [...assets].sort() };
}

const addonName = `@libsql/linux-${Deno.build.arch === "aarch64" ? "arm64" : "x64"}-gnu`;

/** Without comments and long names it takes a tenth less time to start; `--readable` keeps them, for a profile. */
async function bundle(entry: string, output: string): Promise<void> {
  const how = values.readable ? [] : ["--minify"];
  await bundleWith(["--sourcemap=external", ...how], entry, output);
  await dropSources(output);
  if (!values.readable) await refuseWide(output);
}

async function bundleWith(options: readonly string[], entry: string, output: string): Promise<void> {
  const externals = ["--external", addonName, "--external", "@bokuweb/zstd-wasm"];
  await run(Deno.execPath(), ["bundle", "--quiet", ...options, ...externals, "--output", output, entry]);
}

/** One letter beyond ASCII, and the runtime holds and reads all of a bundle in two bytes for each. */
async function refuseWide(path: string): Promise<void> {
  const [letter] = /[^\0-\x7f]/.exec(await Deno.readTextFile(path)) ?? [];
  if (letter !== undefined) {
    fail(`compile: ${path}: ${JSON.stringify(letter)} in it, wanted ASCII: write an escape`);
  }
}

/** Where a module is imported late, the bundler wraps all of them in functions: it takes twice the time to start. */
async function refuseLateImports(entry: string): Promise<void> {
  const readable = await Deno.makeTempFile({ prefix: "state-manager-bundle-" });
  try {
    await bundleWith([], entry, readable); // minified the wrapper has no name
    if (!/^var __esm = /m.test(await Deno.readTextFile(readable))) return;
  } finally {
    await Deno.remove(readable);
  }
  fail(`compile: ${entry}: one of its modules, or of theirs, imports another late (import()), wanted none`);
}

/**
 * The map keeps positions and names; the sources in it would be 4 MB more. In a file of its own, which the runtime reads
 * when an error wants its stack: inside the bundle it would be a third of the time that the program takes to start.
 */
async function dropSources(path: string): Promise<void> {
  const map = JSON.parse(await Deno.readTextFile(`${path}.map`));
  delete map.sourcesContent;
  map.sources = map.sources.map((source: string) => source.replace(/^.*\/registry\.npmjs\.org\//, "npm/"));
  await Deno.writeTextFile(`${path}.map`, JSON.stringify(map));
  const name = path.slice(path.lastIndexOf("/") + 1);
  await Deno.writeTextFile(path, `//# sourceMappingURL=${name}.map\n`, { append: true });
}

/** Runs when the add-on is first required, in the thread that wants it. Old enough syntax, no imports but node's. */
const LOADER = `"use strict";
const fs = require("node:fs"), path = require("node:path"), os = require("node:os"), crypto = require("node:crypto");
const name = "NAME", size = SIZE;
const offered = globalThis[Symbol.for("state-manager.native-folder")];
function usable(file) {
  try {
    const found = fs.lstatSync(file);
    return found.isFile() && found.size === size && found.uid === process.getuid() && (found.mode & 0o022) === 0;
  } catch { return false; }
}
function unpack(folder) {
  const file = path.join(folder, name);
  if (usable(file)) return file;
  const part = file + "." + crypto.randomBytes(8).toString("hex");
  const packed = fs.readFileSync(path.join(__dirname, "addon.zst"));
  try {
    fs.writeFileSync(part, require("node:zlib").zstdDecompressSync(packed), { mode: 0o700, flag: "wx" });
    fs.renameSync(part, file);
  } catch (error) { fs.rmSync(part, { force: true }); throw error; }
  return file;
}
let failure;
for (const folder of [offered, os.tmpdir()]) {
  if (folder === undefined) continue;
  try { module.exports = require(unpack(folder)); failure = undefined; break; } catch (error) { failure = error; }
}
if (offered !== undefined && failure === undefined) {
  try {
    for (const each of fs.readdirSync(offered)) { // what earlier versions unpacked
      if (/^libsql-.*\\.node/.test(each) && each !== name) fs.rmSync(path.join(offered, each), { force: true });
    }
  } catch { /* the next start tries again */ }
}
if (failure !== undefined) throw failure;
`;

/** The libsql add-on as a package of its own beside the bundles: compressed, with the loader as its main file. */
async function writeAddon(): Promise<void> {
  const info = JSON.parse(await outputOf(Deno.execPath(), ["info", "--json"]) ?? "{}");
  const lock = await Deno.readTextFile(`${root}deno.lock`);
  const version = new RegExp(`"${addonName}@([0-9.]+)"`).exec(lock)?.[1];
  const found = `${info.npmCache}/registry.npmjs.org/${addonName}/${version}/index.node`;
  if (!await isFile(found)) {
    fail(`compile: ${found} is missing, wanted the libsql add-on; run deno install first`);
  }
  const addon = await Deno.readFile(found);
  const hash = createHash("sha256").update(addon).digest("hex");
  const folder = `${dist}/node_modules/${addonName}`;
  await Deno.mkdir(folder, { recursive: true });
  const params = { params: { [zlib.constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } };
  await Deno.writeFile(`${folder}/addon.zst`, zlib.zstdCompressSync(addon, params));
  const name = `libsql-${hash.slice(0, 16)}.node`;
  await Deno.writeTextFile(
    `${folder}/index.js`,
    LOADER.replace("NAME", name).replace("SIZE", String(addon.length)),
  );
  await Deno.writeTextFile(
    `${folder}/package.json`,
    JSON.stringify({ name: addonName, version, main: "index.js" }),
  );
}

/**
 * What begins. An archiver starts often, and the whole program takes 40 ms to read, as long as a small restore; a guard and a
 * follower stay as long as the manager, and would hold it in memory.
 */
const ENTRY = `if (Deno.args[0] === "__archive") {
  const { archiverMain } = await import("./archiver.js");
  Deno.exit(await archiverMain());
}
if (Deno.args[0] === "__guard" && Deno.args[1] !== undefined) {
  const { guardMain } = await import("./guard.js");
  Deno.exit(guardMain(Deno.args[1]));
}
if (Deno.args[0] === "__follow") {
  const { followerMain } = await import("./follower.js");
  Deno.exit(await followerMain());
}
if (Deno.args[0] === "restore" && Deno.args.some((arg) => /^--to(=|$)/.test(arg))) {
  const { restoreToMain } = await import("./restore_to.js");
  const code = await restoreToMain(Deno.args);
  if (code !== null) Deno.exit(code);
}
await import("./program.js");
`;

/** `<commit>-<hash of the bundles>`, or the hash alone where there is no git: written into every bundle. */
async function bakeBuild(bundles: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const path of bundles) hash.update(await Deno.readTextFile(path));
  const commit = await outputOf("git", ["rev-parse", "--short=10", "HEAD"]);
  const build = [commit, hash.digest("hex").slice(0, 10)].filter((part) => part !== undefined).join("-");
  let baked = 0;
  for (const path of bundles) {
    const text = await Deno.readTextFile(path);
    if (text.includes(BUILD_MARK)) baked++;
    await Deno.writeTextFile(path, text.replaceAll(BUILD_MARK, BUILD_MARK.replace(/dev$/, build)));
  }
  if (baked === 0) fail("compile: no bundle holds the build's mark (src/platform/build_info.ts)");
  return build;
}

async function compile(output: string, includes: readonly string[]): Promise<void> {
  const denort = Deno.env.get("DENORT_BIN") ?? `${root}.cache/tools/denort`;
  const compiler = Deno.env.get("STATE_MANAGER_COMPILE_DENO") ?? `${root}.cache/deno-2.6.10/bin/deno`;
  const pinned = await isFile(denort) && await isFile(compiler);
  const env: Record<string, string> = {
    RUST_MIN_STACK: String(COMPILER_STACK_BYTES),
    DENO_NO_UPDATE_CHECK: "1",
  };
  if (pinned) env["DENORT_BIN"] = denort;
  else {say(
      `compile: no denort (${denort}) or no deno for it (${compiler}); using the runtime of deno ${Deno.version.deno}`,
    );}
  await run(pinned ? compiler : Deno.execPath(), [
    "compile",
    "--quiet",
    "--allow-all",
    "--no-config",
    "--no-lock",
    "--no-check",
    "--no-code-cache",
    "--node-modules-dir=manual",
    `--v8-flags=${V8_FLAGS.join(",")}`,
    ...includes.flatMap((path) => ["--include", path]),
    "--output",
    resolve(root, output),
    `${dist}/main.js`,
  ], { env, cwd: dist }); // from the root on, every node_modules below it would go into the binary
}

const { values } = parseArgs({
  args: Deno.args,
  options: {
    output: { type: "string", short: "o", default: `${root}state-manager` },
    main: { type: "string", default: `${root}main.ts` },
    readable: { type: "boolean", default: false },
  },
});

await Deno.remove(dist, { recursive: true }).catch(() => {});
const { workers, assets } = await entries();
// Beside each other: assets and Workers are found from where a bundle lies.
const bundles = [
  `${dist}/program.js`,
  `${dist}/archiver.js`,
  `${dist}/guard.js`,
  `${dist}/follower.js`,
  `${dist}/restore_to.js`,
  ...workers.map((path) => `${dist}/${path}.js`),
];
await bundle(values.main, `${dist}/program.js`);
for (
  const [name, entry] of [
    ["archiver", "src/checkpoint/archiver.ts"],
    ["guard", "src/supervisor/guard.ts"],
    ["follower", "src/database/follow_child.ts"],
    ["restore_to", "src/cli/restore_to.ts"],
  ]
) {
  await refuseLateImports(`${root}${entry}`);
  await bundle(`${root}${entry}`, `${dist}/${name}.js`);
}
await Deno.writeTextFile(`${dist}/main.js`, ENTRY);
for (const path of workers) await bundle(`${root}${path}.ts`, `${dist}/${path}.js`);
for (const path of assets) {
  await Deno.mkdir(`${dist}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
  await Deno.copyFile(root + path, `${dist}/${path}`);
}
await writeAddon();
const build = await bakeBuild(bundles);
await compile(values.output, [
  ...bundles,
  ...bundles.map((path) => `${path}.map`),
  ...assets.map((path) => `${dist}/${path}`),
  `${dist}/node_modules`,
]);
const { size } = await Deno.stat(values.output);
say(`${values.output}: build ${build}, ${(size / 1e6).toFixed(1)} MB`);
