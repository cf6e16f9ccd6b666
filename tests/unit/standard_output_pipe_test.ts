import assert from "node:assert/strict";

const root = new URL("../../", import.meta.url);

/** Writes many lines, measures the longest pause of its event loop, and says both in a file on its way out. */
const CHILD = `
import { standardOutput } from "${new URL(
  "src/platform/standard_output.ts",
  root,
)}";
const [report, mode] = Deno.args;
const output = standardOutput();
let last = performance.now(), longestGapMs = 0;
const watch = setInterval(() => {
  const now = performance.now();
  longestGapMs = Math.max(longestGapMs, now - last);
  last = now;
}, 5);
const lines = 20_000;
for (let n = 0; n < lines; n++) {
  output.write(new TextEncoder().encode("line " + n + " " + "x".repeat(100) + "\\n"));
  if (n % 200 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}
clearInterval(watch);
await Deno.writeTextFile(report + ".part", JSON.stringify({ lines, longestGapMs, dropped: output.droppedLines }));
await Deno.rename(report + ".part", report);
await output.flush(mode === "stalled" ? 300 : 50_000);
Deno.exit(0);
`;

interface Report {
  readonly lines: number;
  readonly longestGapMs: number;
  readonly dropped: number;
}

/** A blocked write never ends; a busy machine may well pause a process for some seconds. */
const GAP_LIMIT_MS = 20_000;
const LIFE_LIMIT_MS = 60_000;

async function withChild(
  mode: string,
  use: (child: Deno.ChildProcess, report: string) => Promise<void>,
) {
  const folder = await Deno.makeTempDir({ prefix: "standard_output_" });
  const report = `${folder}/report.json`;
  await Deno.writeTextFile(`${folder}/child.ts`, CHILD);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--quiet",
      "--config",
      new URL("deno.json", root).pathname,
      `${folder}/child.ts`,
      report,
      mode,
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const deadline = setTimeout(() => child.kill("SIGKILL"), LIFE_LIMIT_MS);
  try {
    await use(child, report);
  } finally {
    clearTimeout(deadline);
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("standardOutput neither stops the loop nor the exit when nobody reads the pipe", async () => {
  await withChild("stalled", async (child, path) => {
    const { code, signal } = await child.status;
    await child.stdout.cancel();
    assert.deepEqual({ code, signal }, { code: 0, signal: null });
    const report: Report = JSON.parse(await Deno.readTextFile(path));
    assert.ok(
      report.dropped > 0 && report.dropped < report.lines,
      `dropped ${report.dropped}`,
    );
    assert.ok(
      report.longestGapMs < GAP_LIMIT_MS,
      `the loop stood still for ${report.longestGapMs} ms`,
    );
  });
});

Deno.test("standardOutput delivers whole lines in order, and says how many are missing, to a reader that stalled", async () => {
  await withChild("late", async (child, path) => {
    let ended = false;
    child.status.then(() => ended = true);
    while (!ended && !await Deno.stat(path).then(() => true, () => false)) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const [text, status] = await Promise.all([
      new Response(child.stdout).text(),
      child.status,
    ]);
    assert.deepEqual({ code: status.code, signal: status.signal }, {
      code: 0,
      signal: null,
    });
    const report: Report = JSON.parse(
      await Deno.readTextFile(path),
    );
    let next = 0;
    for (const line of text.trimEnd().split("\n")) {
      const missing = /^state-manager: (\d+) lines dropped/.exec(line);
      if (missing !== null) {
        next += Number(missing[1]);
        continue;
      }
      const number = /^line (\d+) x{100}$/.exec(line);
      assert.ok(number !== null, `not a whole line: ${line.slice(0, 60)}`);
      assert.equal(
        Number(number[1]),
        next,
        "a line is missing without a notice",
      );
      next++;
    }
    assert.equal(next, report.lines);
    assert.ok(report.dropped > 0);
  });
});
