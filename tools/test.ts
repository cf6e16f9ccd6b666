/**
 * The README's test command: `deno task test [paths and flags of deno test]`. Runs the tests one file after the other
 * (many measure time, and start programs of their own) and says at the end what was left out for want of which tool.
 * With STATE_MANAGER_REQUIRE_ALL=1 a test that was left out is a failure.
 */

const root = new URL("../", import.meta.url).pathname;

/** A test's name ends with "[needs …]" where it is left out without that tool; here is what brings it back. */
const NEEDS: Readonly<Record<string, string>> = {
  litestream: "Litestream not found: name its binary in STATE_MANAGER_TEST_LITESTREAM",
  minio: "MinIO not found: name its binary in STATE_MANAGER_TEST_MINIO",
  binary: "no compiled binary: deno task compile, then STATE_MANAGER_BINARY=$PWD/state-manager",
  mount: "may not mount: run as root with CAP_SYS_ADMIN",
  mknod: "may not make device nodes: run as root with CAP_MKNOD",
  cgroups: "may not make control groups: run as root",
  python3: "python3 not found: apt-get install python3",
  strace: "strace not found, or not permitted: apt-get install strace",
  root: "not root, or without the right to make namespaces",
  runc: "runc not found: apt-get install runc",
  buildah: "buildah not found: apt-get install buildah",
  restic: "restic not found: apt-get install restic",
  tini: "tini not found: apt-get install tini",
  nginx: "nginx not found: apt-get install nginx-light",
  redis: "redis-server not found: apt-get install redis-server",
  faketime: "libfaketime not found: apt-get install faketime",
  postgresql: "PostgreSQL not found: apt-get install postgresql",
  sqlite3: "sqlite3 not found: apt-get install sqlite3",
};

/** Names of the tests that were left out, from the runner's JUnit report. */
function leftOut(report: string): string[] {
  const names: string[] = [];
  for (const match of report.matchAll(/<testcase name="([^"]*)"[^>]*>\s*<skipped\/>/g)) {
    names.push(match[1] ?? "");
  }
  return names;
}

/** Sentence → count. */
function reasons(names: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of names) {
    const needs = [...name.matchAll(/\[needs ([\w-]+)\]/g)].map((match) => match[1] ?? "");
    const text = needs.map((need) => NEEDS[need] ?? `${need} not found`).join("; ") ||
      `no reason given: ${name}`;
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  return counts;
}

const flags = Deno.args.filter((arg) => arg.startsWith("-"));
const paths = Deno.args.filter((arg) => !arg.startsWith("-"));
const report = await Deno.makeTempFile({ prefix: "state-manager-tests-", suffix: ".xml" });
const child = new Deno.Command(Deno.execPath(), {
  args: [
    "test",
    "--allow-all",
    "--config",
    "tests/deno.json",
    `--junit-path=${report}`,
    ...flags,
    ...(paths.length > 0 ? paths : ["tests/"]),
  ],
  cwd: root,
  stdin: "null",
}).spawn();
const { code, signal } = await child.status;
const skipped = leftOut(await Deno.readTextFile(report).catch(() => ""));
await Deno.remove(report);
const lines = [...reasons(skipped)].map(([reason, count]) => `skipped ${count}: ${reason}\n`);
// Such an end comes without a word of the runner's own, nor a report.
if (signal !== null) lines.push(`the tests were ended by ${signal}\n`);
await Deno.stdout.write(new TextEncoder().encode(lines.join("")));
const required = Deno.env.get("STATE_MANAGER_REQUIRE_ALL") === "1";
Deno.exit(code !== 0 ? code : required && skipped.length > 0 ? 1 : 0);
