/** Durations, sizes, references and suggestions: small parsers, by example and by property. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { formatDuration, formatSize, parseDuration, parseSize } from "../../src/config/mod.ts";
import { escapeText, expandText } from "../../src/config/expand.ts";
import { nearest } from "../../src/config/suggest.ts";
import { parseListen } from "../../src/config/listen.ts";
import { nameFromPath } from "../../src/config/flags.ts";
import { NAME_PATTERN } from "../../src/config/schema_values.ts";

Deno.test("parseDuration reads units, numbers and their texts as milliseconds", () => {
  const table: Record<string, number> = {
    "1h30m": 5_400_000,
    "250ms": 250,
    "90": 90_000,
    "0.25": 250,
    "1.5s": 1500,
    "2d3h4m5s6ms": 2 * 86_400_000 + 3 * 3_600_000 + 4 * 60_000 + 5000 + 6,
    "1m5ms": 60_005,
    "0s": 0,
  };
  for (const [text, ms] of Object.entries(table)) {
    assert.equal(parseDuration(text), ms, text);
  }
  assert.equal(parseDuration(1.5), 1500);
});

Deno.test("parseDuration refuses whatever is unclear", () => {
  const texts = [
    "",
    " 1s",
    "1s ",
    "1 s",
    "30m1h",
    "1h1h",
    "1.5h",
    "-1s",
    "+1s",
    "1S",
    "1M",
    "1w",
    "s",
    "1e3",
    "0x10",
  ];
  for (const text of [...texts, "1h30", "١s", "1_000", "1s\n"]) {
    assert.equal(parseDuration(text), null, text);
  }
  for (const number of [-1, NaN, Infinity, 1e9]) {
    assert.equal(parseDuration(number), null, String(number));
  }
});

Deno.test("parseDuration reads back what formatDuration wrote", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 365 * 86_400_000 }), (ms) => {
    assert.equal(parseDuration(formatDuration(ms)), ms);
  }));
});

Deno.test("parseDuration agrees with a reader that sums unit by unit", () => {
  const part = fc.nat({ max: 9999 });
  fc.assert(
    fc.property(fc.tuple(part, part, part, part, part), ([d, h, m, s, ms]) => {
      const expected = (((d * 24 + h) * 60 + m) * 60 + s) * 1000 + ms;
      assert.equal(parseDuration(`${d}d${h}h${m}m${s}s${ms}ms`), expected);
    }),
  );
});

Deno.test("parseSize tells binary from decimal units and refuses the ambiguous", () => {
  const table: Record<string, number> = {
    "10MiB": 10 * 2 ** 20,
    "10MB": 10_000_000,
    "1.5GiB": 1.5 * 2 ** 30,
    "1kB": 1000,
    "512": 512,
    "7B": 7,
    "2TiB": 2 ** 41,
  };
  for (const [text, bytes] of Object.entries(table)) {
    assert.equal(parseSize(text), bytes, text);
  }
  for (
    const text of [
      "",
      "10M",
      "10mb",
      "10 MB",
      "1.5",
      "1.5B",
      "-1MB",
      "MB",
      "9e3",
      "999999999999999TiB",
    ]
  ) {
    assert.equal(parseSize(text), null, text);
  }
  assert.equal(parseSize(1.5), null);
});

Deno.test("parseSize reads back what formatSize wrote", () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 2 ** 31 - 1 }),
      fc.nat({ max: 3 }),
      (count, power) => {
        const bytes = Math.floor(count / 1024 ** (3 - power)) *
          1024 ** (3 - power);
        assert.equal(parseSize(formatSize(bytes)), bytes);
      },
    ),
  );
});

Deno.test("expandText replaces references and keeps every other dollar", () => {
  const variables = { A: "x", EMPTY: "", toString: "own" };
  const table: Record<string, string> = {
    "${A}-${A}": "x-x",
    "${B:-d}": "d",
    "${EMPTY:-d}": "d",
    "${EMPTY}": "",
    "${B:-}": "",
    "${B:-a:-b}": "a:-b",
    "$$": "$",
    "$${A}": "${A}",
    "$$${A}": "$x",
    "$A $ 5$": "$A $ 5$",
  };
  for (const [text, expected] of Object.entries(table)) {
    assert.deepEqual(expandText(text, variables), { text: expected }, text);
  }
  for (
    const text of [
      "${B}",
      "${",
      "${A",
      "${}",
      "${A-b}",
      "${1A}",
      "${hasOwnProperty}",
      "${ A }",
    ]
  ) {
    assert.ok("problem" in expandText(text, variables), text);
  }
});

Deno.test("expandText gives back what escapeText was given, whatever the variables", () => {
  const text = fc.string({
    unit: fc.constantFrom("$", "{", "}", "A", ":", "-", "$$", "${A}", "é"),
  });
  fc.assert(fc.property(text, (original) => {
    assert.deepEqual(expandText(escapeText(original), { A: "wrong" }), {
      text: original,
    });
  }));
});

Deno.test("nearest finds the mistyped word and nothing when none is near", () => {
  const known = ["bucket", "endpoint", "timeout_stop", "region"];
  assert.equal(nearest("buckt", known), "bucket");
  assert.equal(nearest("TimeoutStop", known), "timeout_stop");
  assert.equal(nearest("time-out-stop", known), "timeout_stop");
  assert.equal(nearest("colour", known), null);
  assert.equal(nearest("x".repeat(10_000), known), null);
});

Deno.test("parseListen takes the usual forms and no other", () => {
  const table: Record<string, [string, number]> = {
    "127.0.0.1:8080": ["127.0.0.1", 8080],
    "[::1]:80": ["::1", 80],
    "localhost:0": ["localhost", 0],
    ":8080": ["0.0.0.0", 8080],
    "8080": ["127.0.0.1", 8080],
  };
  for (const [text, [hostname, port]] of Object.entries(table)) {
    assert.deepEqual(parseListen(text), { hostname, port }, text);
  }
  for (
    const text of [
      "",
      "host",
      "host:",
      "host:99999",
      "::1:80",
      "http://x:80",
      "[zz]:80",
      "[:::]:80",
      "a b:1",
    ]
  ) {
    assert.equal(parseListen(text), null, text);
  }
});

Deno.test("nameFromPath gives a legal name for any path", () => {
  assert.equal(nameFromPath("/srv/app.db"), "app");
  assert.equal(nameFromPath("/srv/data/"), "data");
  assert.equal(nameFromPath("/usr/bin/python3.11"), "python3");
  assert.equal(nameFromPath("/home/me/.minecraft"), "minecraft");
  assert.equal(nameFromPath("/"), "data");
  fc.assert(
    fc.property(
      fc.string({ unit: "binary" }),
      (path) => assert.match(nameFromPath(path), NAME_PATTERN),
    ),
  );
});
