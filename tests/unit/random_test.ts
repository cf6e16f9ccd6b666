import assert from "node:assert/strict";
import { systemRandom, ulid } from "../../src/platform/random.ts";

Deno.test("ulid sorts by time and is 26 characters long", () => {
  const random = systemRandom();
  const early = ulid(1_700_000_000_000, random);
  const late = ulid(1_700_000_000_001, random);
  assert.equal(early.length, 26);
  assert.match(early, /^[0-9a-hjkmnp-tv-z]{26}$/);
  assert.ok(early < late);
});
