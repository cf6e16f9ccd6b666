import assert from "node:assert/strict";
import fc from "fast-check";
import { StateManagerError } from "../../src/platform/errors.ts";
import { configureLog, flushLog, log, type LogOptions } from "../../src/platform/log.ts";
import { plainValue } from "../../src/platform/plain_value.ts";
import { Secret } from "../../src/platform/secret.ts";
import type { OutputSink } from "../../src/platform/standard_output.ts";

interface TextSink extends OutputSink {
  text(): string;
}

function textSink(): TextSink {
  let text = "";
  return {
    droppedLines: 0,
    room: () => null,
    write: (bytes) => void (text += new TextDecoder().decode(bytes)),
    flush: () => Promise.resolve(),
    describeDrops: () => {},
    text: () => text,
  };
}

/** What one call of the log writes. */
function written(call: () => void, options: Partial<LogOptions> = {}): string {
  const sink = textSink();
  configureLog({ format: "json", level: "debug", sink, ...options });
  call();
  return sink.text();
}

Deno.test("log writes one JSON line with the fields nested, so that none can pose as the level", () => {
  const text = written(() => log("lease").warn("renewal failed", { level: "debug", time: 1, attempt: 3 }));
  assert.equal(text.split("\n").length, 2);
  const line = JSON.parse(text);
  assert.deepEqual({ ...line, time: "" }, {
    time: "",
    level: "warn",
    category: "lease",
    message: "renewal failed",
    fields: { level: "debug", time: 1, attempt: 3 },
  });
  assert.match(line.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
});

Deno.test("log leaves out what is below its level", () => {
  const text = written(() => {
    log("a").info("no");
    log("a").warn("yes");
  }, { level: "warn" });
  assert.equal(JSON.parse(text).message, "yes");
});

Deno.test("log prints secrets as *** at any depth, in both formats", () => {
  const secret = new Secret("hunter2");
  const fields = {
    a: secret,
    b: [{ c: new Map([["d", secret]]) }],
    e: { password: "hunter2", secret_key: "hunter2" },
  };
  for (const format of ["text", "json"] as const) {
    const text = written(() => log("a").info("told", fields), { format });
    assert.doesNotMatch(text, /hunter2/);
    assert.match(text, /\*\*\*/);
  }
});

Deno.test("log shows an error's code, hint and cause, and a stack only where the error was not expected", () => {
  const cause = new TypeError("connection refused");
  const error = new StateManagerError(
    "store-unreachable",
    "put lease.json: no answer",
    { hint: "look", cause },
  );
  const { fields } = JSON.parse(
    written(() => log("a").error("failed", { error })),
  );
  assert.deepEqual(fields.error, {
    name: "StateManagerError",
    message: "put lease.json: no answer",
    code: "store-unreachable",
    hint: "look",
    cause: { name: "TypeError", message: "connection refused" },
  });
  const foreign = JSON.parse(
    written(() => log("a").error("failed", { error: cause })),
  );
  assert.match(foreign.fields.error.stack, /log_lines_test/);
  const text = written(() => log("a").error("failed", { error }), {
    format: "text",
  });
  assert.match(
    text,
    / error="put lease.json: no answer" code=store-unreachable hint=look cause="connection refused"\n$/,
  );
});

Deno.test("log writes braces and control characters of foreign text as they are, without obeying them", () => {
  const message = "answer was {attempt} \n\x1b[31m";
  assert.equal(
    JSON.parse(written(() => log("a").info(message, { attempt: 1 }))).message,
    message,
  );
  const text = written(() => log("a").info(message, { "k\n": "v\n" }), {
    format: "text",
  });
  assert.equal(text.split("\n").length, 2);
  assert.ok(!text.includes("\x1b"));
});

Deno.test("log survives fields that throw when they are looked at", () => {
  const hostile: Record<string, unknown> = {
    get boom() {
      throw new Error("boom");
    },
    json: { toJSON: () => JSON.parse("{") },
    proxy: new Proxy({}, {
      ownKeys: () => JSON.parse("{"),
      get: () => JSON.parse("{"),
      has: () => JSON.parse("{"),
    }),
    big: 1n,
    date: new Date(NaN),
    symbol: Symbol("s"),
  };
  hostile["self"] = hostile;
  hostile["huge"] = Array.from({ length: 1e5 }, (_, i) => ({ i }));
  const text = written(() => {
    log("a").info("one", hostile);
    log("a").info("two", hostile["proxy"] as Record<string, unknown>);
  });
  const [one, two] = text.trim().split("\n").map((line) => JSON.parse(line));
  assert.equal(one.fields.boom, "[unreadable]");
  assert.equal(one.fields.big, "1");
  assert.equal(one.fields.self, "[circular]");
  assert.equal(two.message, "two");
  assert.ok(text.length < 100_000, `${text.length} bytes`);
});

Deno.test("plainValue gives JSON data for anything, without ever throwing", () => {
  fc.assert(
    fc.property(
      fc.anything({
        withBigInt: true,
        withDate: true,
        withMap: true,
        withNullPrototype: true,
      }),
      (value) => {
        JSON.stringify(plainValue(value));
      },
    ),
  );
});

Deno.test("log is configured again by a later call and flushes its sink", async () => {
  const first = written(() => log("a").info("one"));
  const second = written(() => log("a").info("two"), { format: "text" });
  assert.match(first, /one/);
  assert.match(second, /INFO {2}a: two\n$/);
  await flushLog(1);
});
