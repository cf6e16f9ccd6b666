import assert from "node:assert/strict";
import { GROUPS } from "../../src/cli/command_options.ts";
import { COMMANDS } from "../../src/cli/command_table.ts";
import { Options } from "../../src/cli/context.ts";
import { configFlags, namedPath } from "../../src/cli/flags.ts";
import { withStandards } from "../../src/cli/program.ts";
import { printable, size, table } from "../../src/cli/text.ts";
import { command } from "../support/fake_terminal.ts";

Deno.test("the program alone is the server, and a group alone its standard command", () => {
  const cases: [string[], string[]][] = [
    [[], ["serve"]],
    [["--listen", "x"], ["serve", "--listen", "x"]],
    [["--help"], ["--help"]],
    [["-V"], ["-V"]],
    [["run", "--", "x"], ["run", "--", "x"]],
    [["checkpoint"], ["checkpoint", "list"]],
    [["checkpoint", "--json"], ["checkpoint", "list", "--json"]],
    [["checkpoint", "--help"], ["checkpoint", "--help"]],
    [["checkpoint", "create"], ["checkpoint", "create"]],
    [["lease"], ["lease", "show"]],
    [["toString"], ["toString"]],
  ];
  for (const [argv, expected] of cases) {
    assert.deepEqual(withStandards(argv), expected);
  }
});

Deno.test("wrong usage is exit 64, told on standard error, with a suggestion where one is near", async () => {
  const cases: [string[], RegExp][] = [
    [["statsu"], /Did you mean status/],
    [["checkpoint", "lisst"], /Did you mean list/],
    [["status", "--jsno"], /Did you mean --json/],
    [["status", "surplus"], /too many arguments/],
    [["run"], /command/],
    [["run", "--restart", "sometimes", "--", "x"], /always/],
    [["checkpoint", "show", "nonsense!"], /ordinal/],
    [["restore"], /which state/],
    [["restore", "v1", "--at", "2026-01-01T00:00:00Z"], /once/],
    [["restore", "--at", "yesterday", "--to", "/x"], /RFC 3339/],
    [["restore", "v1", "--directory", "/x", "--url", "http://127.0.0.1:1"], /its own store/],
    [["db", "restore", "app"], /--txid N, --at TIME or --checkpoint/],
    [["db", "restore", "app", "--txid", "1", "--checkpoint", "v1"], /not two/],
    [["status", "--url", "localhost"], /http:/],
    [["checkpoint", "create", "--label", "x"], /NAME=VALUE/],
    [["--no-such-option"], /unknown option/],
  ];
  for (const [argv, text] of cases) {
    const { code, out, err } = await command(argv);
    assert.deepEqual([code, out], [64, ""], argv.join(" "));
    assert.match(err, text, argv.join(" "));
    assert.match(err, /hint: /, argv.join(" "));
    if (argv[0] === "run" || argv[0] === "--no-such-option") continue; // these two have no --json
    const forPrograms = await command([...argv, "--json"]);
    const told = JSON.parse(forPrograms.err);
    assert.deepEqual([forPrograms.code, told.type, told.code], [64, "error", "usage"], forPrograms.err);
    assert.match(`${told.message} ${told.hint}`, text);
  }
});

Deno.test("help is data for every command, and exits with 0", async () => {
  for (
    const path of [
      "",
      ...Object.keys(GROUPS),
      ...COMMANDS.map(({ name }) => name),
    ]
  ) {
    const { code, out, err } = await command([
      ...path.split(" ").filter((part) => part !== ""),
      "--help",
    ]);
    assert.deepEqual([code, err], [0, ""], path);
    assert.match(out, /Usage: state-manager/, path);
  }
  const { code, out } = await command(["--version"]);
  assert.equal(code, 0);
  assert.match(out, /^state-manager \d+\.\d+\.\d+ \(/);
});

Deno.test("the program's options and arguments become the configuration's flags, and nothing else", () => {
  assert.deepEqual(configFlags(new Options({})), {});
  assert.deepEqual(
    configFlags(new Options({ leaseWait: true, json: true, quiet: true })),
    {},
  );
  const options = new Options({
    files: ["data=/srv/data", "/srv/more"],
    database: ["./a=b.db"],
    leaseWait: false,
    prefix: "",
    checkpointInterval: "1m",
  });
  assert.deepEqual(configFlags(options, ["sh", "-c", "x"]), {
    files: [{ name: "data", path: "/srv/data" }, { path: "/srv/more" }],
    database: [{ path: "./a=b.db" }],
    leaseWait: false,
    prefix: "",
    checkpointInterval: "1m",
    command: ["sh", "-c", "x"],
  });
  assert.throws(() => namedPath("data=", "--files"), { code: "usage" });
  assert.throws(() => namedPath("", "--files"), { code: "usage" });
});

Deno.test("with no manager to ask, a command exits with 69 and a hint, as JSON where asked", async () => {
  for (
    const argv of [["status"], ["ps"], ["lease", "release"], ["healthcheck"], [
      "checkpoint",
      "create",
    ]]
  ) {
    const { code, err } = await command([
      ...argv,
      "--data-dir",
      "/nowhere/at/all",
    ]);
    assert.equal(code, 69, argv.join(" "));
    assert.match(err, /hint: .*--data-dir/);
  }
  const { err } = await command([
    "status",
    "--json",
    "--data-dir",
    "/nowhere/at/all",
  ]);
  assert.deepEqual([JSON.parse(err).type, JSON.parse(err).code], [
    "error",
    "manager-unreachable",
  ]);
});

Deno.test("texts from elsewhere cannot steer the terminal", () => {
  assert.equal(printable("a\u001b[2Jb\nc\u009bd"), "a\uFFFD[2Jb c\uFFFDd");
  assert.equal(
    table(["A", "B"], [["x\ny", "\u0007"]]),
    "A    B\nx y  \uFFFD\n",
  );
  assert.deepEqual([size(0), size(1023), size(1536), size(5 * 1024 ** 4)], [
    "0 B",
    "1023 B",
    "1.5 KiB",
    "5.0 TiB",
  ]);
});
