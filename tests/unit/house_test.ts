/** The house's own rules, as tests: what a reviewer would otherwise have to remember. They may only tighten. */

import assert from "node:assert/strict";
import { API } from "../../src/server/api_table.ts";
import { testApp } from "../support/test_app.ts";
import { buildInfo } from "../../src/platform/build_info.ts";
import { ERROR_TABLE } from "../../src/platform/errors.ts";

const root = new URL("../../", import.meta.url).pathname;

/** Hard limit; 300 is the aim. */
const FILE_LIMIT_LINES = 600;
/** Exit codes that docs/operations.md names. */
const EXIT_CODES = new Set([
  1,
  2,
  64,
  65,
  69,
  70,
  74,
  75,
  77,
  78,
  126,
  127,
  130,
]);
const SCANNED = ["src", "tests", "tools", "bench"];

function* files(path: string): Generator<string> {
  if (!Deno.statSync(root + path).isDirectory) return yield path;
  for (const entry of Deno.readDirSync(root + path)) {
    if (entry.name !== "node_modules" && !entry.isSymlink) {
      yield* files(`${path}/${entry.name}`);
    }
  }
}

function json(
  path: string,
): { version?: string; imports: Record<string, string>; license?: string } {
  return JSON.parse(Deno.readTextFileSync(root + path));
}

Deno.test("tests/deno.json names the same versions as deno.json", () => {
  const own = json("tests/deno.json").imports;
  for (const [name, target] of Object.entries(json("deno.json").imports)) {
    assert.equal(own[name], target, name);
  }
});

Deno.test("every package is pinned to an exact version", () => {
  for (const path of ["deno.json", "tests/deno.json"]) {
    for (const [name, target] of Object.entries(json(path).imports)) {
      assert.match(
        target,
        /^npm:(@[\w-]+\/)?[\w.-]+@\d+\.\d+\.\d+$/,
        `${name} in ${path}`,
      );
    }
  }
});

Deno.test("buildInfo names deno.json's version and, from source, the build dev", () => {
  assert.deepEqual(buildInfo(), {
    version: json("deno.json").version,
    build: "dev",
  });
});

Deno.test("ERROR_TABLE gives every code a status, an exit code of the documented ones and a title", () => {
  for (const [code, meaning] of Object.entries(ERROR_TABLE)) {
    assert.match(code, /^[a-z]+(-[a-z]+)*$/);
    assert.ok(
      meaning.status >= 400 && meaning.status <= 599,
      `${code}: status ${meaning.status}`,
    );
    assert.ok(EXIT_CODES.has(meaning.exit), `${code}: exit ${meaning.exit}`);
    assert.match(meaning.title, /^[A-Z]/, code);
  }
});

Deno.test(`no source file has more than ${FILE_LIMIT_LINES} lines`, () => {
  for (
    const path of SCANNED.flatMap((each) => [...files(each)]).filter((each) => /\.tsx?$/.test(each))
  ) {
    const lines = Deno.readTextFileSync(root + path).split("\n").length;
    assert.ok(lines <= FILE_LIMIT_LINES, `${path} has ${lines} lines`);
  }
});

Deno.test("every source file begins with a comment that says what it is for", () => {
  for (const path of [...files("src")].filter((each) => /\.tsx?$/.test(each))) {
    const text = Deno.readTextFileSync(root + path);
    assert.match(
      text,
      /^(\/\*\* @jsx[^\n]*\n)?\/\*\*/,
      `${path} begins with ${JSON.stringify(text.slice(0, 40))}`,
    );
  }
});

interface LintReport {
  readonly diagnostics: readonly {
    readonly filename: string;
    readonly code: string;
  }[];
}

/** What the house's plugin says about one file of a room. */
async function lint(file: string, source: string): Promise<string[]> {
  const folder = await Deno.makeTempDir({ prefix: "house_test_" });
  try {
    const path = `${folder}/src/${file}`;
    await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(path, source);
    const lint = {
      plugins: [`${root}tools/lint_plugin.ts`],
      rules: { tags: [] },
    };
    await Deno.writeTextFile(`${folder}/deno.json`, JSON.stringify({ lint }));
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["lint", "--json", `src/${file}`],
      cwd: folder,
      stderr: "null",
    }).output();
    const report: LintReport = JSON.parse(new TextDecoder().decode(stdout));
    return report.diagnostics.map((each) => each.code);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const WRONG_WAY: Readonly<Record<string, string>> = {
  "import": 'import { a } from "../manager/mod.ts"; a();',
  "type import": 'import type { A } from "../manager/mod.ts"; export type B = A;',
  "named re-export": 'export { a } from "../manager/mod.ts";',
  "star re-export": 'export * from "../manager/mod.ts";',
  "dynamic import": 'await import("../manager/mod.ts");',
};

for (const [kind, source] of Object.entries(WRONG_WAY)) {
  Deno.test(`the import rule refuses a wrong-way ${kind}`, async () => {
    assert.deepEqual(await lint("lease/holder.ts", source), ["house/layers"]);
  });
}

Deno.test("the import rule refuses an import from a sibling room", async () => {
  const source = 'import { a } from "../checkpoint/mod.ts"; a();';
  assert.deepEqual(await lint("lease/holder.ts", source), ["house/layers"]);
});

Deno.test("the import rule allows imports downwards and from the same room", async () => {
  const source = 'import { a } from "../lease/mod.ts"; import { b } from "./b.ts"; a(b);';
  assert.deepEqual(await lint("manager/holder.ts", source), []);
});

Deno.test("only src/platform may use Deno's values", async () => {
  assert.deepEqual(await lint("lease/holder.ts", "Deno.exit(1);"), [
    "house/deno-in-platform",
  ]);
  assert.deepEqual(
    await lint("lease/holder.ts", "export type A = Deno.Signal;"),
    [],
  );
  assert.deepEqual(await lint("platform/exit.ts", "Deno.exit(1);"), []);
});

Deno.test("no module makes an error when it is loaded", async () => {
  const made = 'new RangeError("a")';
  for (const source of [`const a = ${made}; b(a);`, `export const a = ${made};`]) {
    assert.deepEqual(await lint("lease/holder.ts", source), ["house/no-error-at-load"]);
  }
  for (
    const source of [`export const a = () => ${made};`, `export function a() { const b = ${made}; throw b; }`]
  ) {
    assert.deepEqual(await lint("lease/holder.ts", source), []);
  }
});

Deno.test("every served route is in the table of the API (src/server/api_table.ts), and no other is", () => {
  const served = testApp().routes.filter(({ method }) => method !== "ALL")
    .map(({ method, path }) => `${method.toLowerCase()} ${path}`);
  const described = API.map(({ method, path }) => `${method} ${path}`);
  assert.deepEqual(described.toSorted(), served.toSorted());
});
