/** Bodies that JavaScript would read as something else than what they say. */

import assert from "node:assert/strict";
import { forbiddenKeys, repeatedKeys } from "../../src/platform/json_keys.ts";
import { testApp, type TestRequest } from "../support/test_app.ts";

const type = { "content-type": "application/json" };

async function refused(path: string, request: TestRequest) {
  const response = await testApp().ask(path, request);
  const answer = await response.json();
  assert.equal(response.status, 422, JSON.stringify(answer));
  assert.ok(answer.hint, "no hint");
  return answer;
}

Deno.test("a list in place of an object is refused where it stands", async () => {
  for (const labels of [[], ["a"]]) {
    const { errors } = await refused("/checkpoint", { json: { labels } });
    assert.deepEqual(errors, [{ pointer: "/labels", detail: "must be a JSON object, and not a list" }]);
  }
  const { errors } = await refused("/restore", { json: [] });
  assert.deepEqual(errors, [{ pointer: "", detail: "must be a JSON object, and not a list" }]);
});

Deno.test("a key that an object of the language has by itself is refused with a reason, not dropped", async () => {
  for (const key of ["constructor", "__proto__", "prototype", "toString"]) {
    const body = `{"labels": {"${key}": "x"}}`;
    const { errors } = await refused("/checkpoint", { body, headers: type });
    assert.deepEqual(errors, [{
      pointer: "/labels",
      detail: `has the key ${key}, which cannot be used: take another name`,
    }]);
    const outer = await refused("/checkpoint", { body: `{"${key}": "x"}`, headers: type });
    assert.equal(outer.errors[0].pointer, "");
  }
  assert.deepEqual(forbiddenKeys({ a: [{ valueOf: 1 }] }), [["a", 0, "valueOf"]]);
});

Deno.test("a key that is given twice is refused, and where it is told as far as we know the names", async () => {
  const errors = async (path: string, body: string) => (await refused(path, { body, headers: type })).errors;
  const twice = "is given more than once: leave one of them";
  const within = "has a key more than once: leave one of them";
  assert.deepEqual(await errors("/checkpoint", '{"comment": "a", "comment": "b"}'), [
    { pointer: "/comment", detail: twice },
  ]);
  assert.deepEqual(await errors("/checkpoint", '{"labels": {"own": "a", "own": "b"}}'), [
    { pointer: "/labels", detail: within },
  ]);
  assert.deepEqual(await errors("/checkpoint", '{"own": 1, "own": 2}'), [{ pointer: "", detail: within }]);
  assert.deepEqual(await errors("/config", '{"files": {"a": {"path": "/a", "path": "/b"}}}'), [
    { pointer: "/files/a/path", detail: twice },
  ]);
});

Deno.test("keys that are given twice are found where they are, and nowhere else", () => {
  const cases: [string, (string | number)[][]][] = [
    ['{"a": 1, "b": {"a": 2}, "c": [{"a": 3}, {"a": 4}]}', []],
    ['{"a": "b", "b": "a", "c": "{\\"a\\":1,\\"a\\":2}"}', []],
    ['["a", "a", {}, [], {"a": "a"}]', []],
    ['{"a": 1, "\\u0061": 2}', [["a"]]],
    ['[{"a": [1, 2, {"b": 1, "c": ["b"], "b": 2}]}, {"a": 1, "a": 2, "a": 3}]', [
      [0, "a", 2, "b"],
      [1, "a"],
      [1, "a"],
    ]],
    ['{"\\\\": 1, "\\"": 2, "\\\\": 3}', [["\\"]]],
    ['"a"', []],
    ["1", []],
  ];
  for (const [text, expected] of cases) {
    JSON.parse(text);
    assert.deepEqual(repeatedKeys(text), expected, text);
  }
});
