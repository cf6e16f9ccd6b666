import assert from "node:assert/strict";
import { Stillness } from "../../src/supervisor/stillness.ts";

Deno.test("Stillness lets a stop signal through but while frozen, and owes it until the thaw, once", () => {
  const one = new Stillness();
  assert.ok(one.mayAsk("group") && one.mayAsk("leader"));
  assert.equal(one.thaw(), null, "what was sent is not owed");
  one.freeze();
  assert.ok(one.isFrozen);
  assert.equal(one.mayAsk("leader"), false);
  one.freeze(); // again, for who was forked meanwhile
  assert.equal(one.mayAsk("leader"), false);
  assert.equal(one.thaw(), "leader");
  assert.equal(one.isFrozen, false);
  assert.ok(one.mayAsk("leader"));
  assert.equal(one.thaw(), null);
});

Deno.test("Stillness owes it to the whole group where that was asked for once, and to nobody when they are gone", () => {
  for (const order of [["group", "leader"], ["leader", "group"]] as const) {
    const one = new Stillness();
    one.freeze();
    for (const whom of order) assert.equal(one.mayAsk(whom), false);
    assert.equal(one.thaw(), "group");
  }
  const gone = new Stillness();
  gone.freeze();
  gone.mayAsk("group");
  gone.forget();
  assert.ok(gone.isFrozen, "the next one stands still, too");
  assert.equal(gone.thaw(), null);
});
