/** Restarts by changed files: when, how often, and what is left out. */

import assert from "node:assert/strict";
import {
  FLAP_LIMIT,
  NEW_WATCH_STATE,
  noteChange,
  settle,
  settledAtMs,
  type WatchState,
} from "../../src/supervisor/watch_rules.ts";
import { isIgnored } from "../../src/supervisor/watching.ts";

Deno.test("watch rules answer many changes once, when they have calmed down", () => {
  let state = noteChange(NEW_WATCH_STATE, 1_000);
  state = noteChange(state, 1_200);
  assert.equal(settledAtMs(state), 1_500);
  assert.equal(settle(state, 1_499).verdict, "nothing");
  const step = settle(state, 1_500);
  assert.equal(step.verdict, "restart");
  assert.equal(settledAtMs(step.state), null);
  assert.equal(settle(step.state, 9_999).verdict, "nothing");
});

Deno.test("watch rules answer changes that never calm down after five seconds", () => {
  let state: WatchState = NEW_WATCH_STATE;
  for (let ms = 0; ms <= 5_000; ms += 100) state = noteChange(state, ms);
  assert.equal(settledAtMs(state), 5_000);
  assert.equal(settle(state, 5_000).verdict, "restart");
});

Deno.test("watch rules suspend after ten restarts within a minute, and take no more changes then", () => {
  let state: WatchState = NEW_WATCH_STATE;
  for (let n = 0; n < FLAP_LIMIT; n++) {
    const step = settle(noteChange(state, n * 1_000), n * 1_000 + 300);
    assert.equal(step.verdict, "restart", String(n));
    state = step.state;
  }
  const step = settle(noteChange(state, 20_000), 20_300);
  assert.equal(step.verdict, "suspend");
  assert.equal(settledAtMs(noteChange(step.state, 30_000)), null);
});

Deno.test("watch rules forget restarts that are a minute old", () => {
  let state: WatchState = NEW_WATCH_STATE;
  for (let n = 0; n < 3 * FLAP_LIMIT; n++) {
    const step = settle(noteChange(state, n * 7_000), n * 7_000 + 300);
    assert.equal(step.verdict, "restart", String(n));
    state = step.state;
  }
});

Deno.test("watch leaves out our own folders, rotated logs and excluded names at any depth", () => {
  const spec = { paths: ["/app"], exclude: [".git", ".*.sw?"], ignore: ["/app/data", "/app/web.log"] };
  const cases: [string, boolean][] = [
    ["/app/main.ts", false],
    ["/app", false],
    ["/app/data", true],
    ["/app/data/guard.lock", true],
    ["/app/database", false],
    ["/app/web.log", true],
    ["/app/web.log.1", true],
    ["/app/.git/index", true],
    ["/app/src/.main.ts.swp", true],
    ["/app/src/git", false],
  ];
  for (const [path, wanted] of cases) assert.equal(isIgnored(spec, "/app", path), wanted, path);
});
