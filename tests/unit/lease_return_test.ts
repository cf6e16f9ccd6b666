/** The fast return: a lease holder whose predecessor on the same machine is proven dead, and its memory in a file. */

import assert from "node:assert/strict";
import type { LeaseMemory } from "../../src/lease/mod.ts";
import { decodeLease, encodeLease, openLeaseMemory } from "../../src/lease/mod.ts";
import { osErrorOf } from "../../src/platform/errno.ts";
import { isError, type StateManagerError } from "../../src/platform/errors.ts";
import { readBootId } from "../../src/platform/proc.ts";
import { type LockCalls, lockFolder } from "../../src/platform/folder_lock.ts";
import {
  BELIEF_MS,
  bench,
  code,
  end,
  foreign,
  held,
  news,
  recordIn,
  TAKE_OVER_MS,
} from "../support/lease_bench.ts";
import { ScriptedStore } from "../support/scripted_store.ts";
import { settled, VirtualClock } from "../support/virtual_clock.ts";

class TestMemory implements LeaseMemory {
  readonly writes: (readonly string[])[] = [];
  answer: () => Promise<void> = () => Promise.resolve();

  constructor(readonly inherited: readonly string[] = []) {}

  remember(nonces: readonly string[]): Promise<void> {
    this.writes.push(nonces);
    return this.answer();
  }

  get kept(): readonly string[] {
    return this.writes.at(-1) ?? this.inherited;
  }
}

const dead = (nonce: string) => foreign({ holder: "dead", nonce });

Deno.test("lease holder claims at once what its dead predecessor held, by its nonce alone", async () => {
  const made = bench({ memory: new TestMemory(["n0", "n1"]) });
  made.store.write("lease.json", dead("n1"));
  const term = await made.holder.acquire({ wait: false });
  assert.equal(term.token, 6);
  assert.equal(term.clean, false);
  assert.equal(term.previous?.holder, "dead");
  await end(made);

  const wrong = bench({ memory: new TestMemory(["n0"]) });
  wrong.store.write("lease.json", dead("n1"));
  await assert.rejects(wrong.holder.acquire({ wait: false }), code("lease-held-elsewhere"));
  const waiting = wrong.holder.acquire({ wait: true });
  await wrong.clock.advance(TAKE_OVER_MS - 1);
  assert.equal(wrong.store.puts.length, 0);
  await wrong.clock.advance(1_251);
  assert.equal((await waiting).token, 6);
  await end(wrong);
});

Deno.test("lease holder claims a late renewal of its predecessor too, when that lands before the claim", async () => {
  const made = bench({ memory: new TestMemory(["n1", "n2"]) });
  const { store } = made;
  store.write("lease.json", dead("n1"));
  let late = false;
  store.onPut = () => {
    if (late) return;
    late = true;
    store.write("lease.json", dead("n2"));
  };
  const term = await made.holder.acquire({ wait: true });
  assert.equal(term.token, 6);
  assert.equal(store.puts.length, 2, "the first claim was refused");
  assert.equal(made.clock.monotonicMs(), 1_000, "no time passed");
  await end(made);
});

Deno.test("lease holder waits as anybody when a write lands that the memory does not know", async () => {
  const made = bench({ memory: new TestMemory(["n1"]) });
  const { store, clock } = made;
  store.write("lease.json", dead("n1"));
  let late = false;
  store.onPut = () => {
    if (late) return;
    late = true;
    store.write("lease.json", dead("n2"));
  };
  const waiting = made.holder.acquire({ wait: true });
  await clock.advance(TAKE_OVER_MS - 1);
  assert.equal(store.puts.length, 1);
  await clock.advance(1_251);
  assert.equal((await waiting).token, 6);
  await end(made);
});

Deno.test("a dead predecessor's renewal that lands after the claim changes nothing", async () => {
  const made = bench({ memory: new TestMemory(["n1", "n2"]) });
  const { store, clock, holder, events } = made;
  store.write("lease.json", dead("n1"));
  const { etag } = await store.get("lease.json");
  await holder.acquire({ wait: true });
  const late = encodeLease(decodeLease(new TextEncoder().encode(dead("n2"))));
  await assert.rejects(store.put("lease.json", late, { condition: { etag } }), code("precondition-failed"));
  await clock.advance(30_000);
  holder.assertHeld();
  assert.deepEqual(news(events), ["acquired"]);
  await end(made);
});

Deno.test("lease holder believes its memory no more once another one held the lease", async () => {
  const made = bench({ memory: new TestMemory(["n1"]) });
  made.store.write("lease.json", foreign({ token: 6 }));
  await assert.rejects(made.holder.acquire({ wait: false }), code("lease-held-elsewhere"));
  await end(made);
});

Deno.test("lease memory names all that may stand in the store before each put leaves", async () => {
  const memory = new TestMemory(["n1", "n2"]);
  const made = bench({ memory });
  const { store, clock } = made;
  store.write("lease.json", dead("n1"));
  let checked = 0;
  store.onPut = (_key, text) => {
    const put = decodeLease(new TextEncoder().encode(text));
    if (put.state === "released") return;
    assert.ok(memory.kept.includes(put.nonce), "the new one");
    assert.ok(memory.kept.includes(recordIn(store).nonce), "and the one that stands there");
    checked++;
  };
  await made.holder.acquire({ wait: true });
  assert.deepEqual(
    memory.writes[0]?.slice(0, 2),
    ["n1", "n2"],
    "the predecessor's, until the claim has landed",
  );
  let failures = 3;
  store.spoil = (operation) => operation === "put" && failures-- > 0 ? "after" : null;
  await clock.advance(30_000);
  assert.ok(checked > 6);
  assert.ok(memory.writes.every((nonces) => nonces.length <= 3));
  assert.equal(memory.kept.length, 2);
  await end(made);
});

/** Runs a holder until its put number `crashAt`, where it dies; what it leaves, and its last put if that is under way. */
async function crash(when: "before the put" | "put, not landed" | "put, landed", crashAt: number) {
  const memory = new TestMemory();
  const { store, clock, holder } = bench({ memory });
  const died = Promise.withResolvers<void>();
  let puts = 0;
  let underWay = { standing: store.text("lease.json"), text: "" };
  store.onPut = (_key, text) => {
    underWay = { standing: store.text("lease.json"), text };
  };
  store.spoil = (operation) => {
    if (operation !== "put" || ++puts < crashAt) return null;
    died.resolve();
    return when === "put, landed" ? "hang-after" : "hang";
  };
  memory.answer = () => {
    if (when !== "before the put" || memory.writes.length < crashAt) return Promise.resolve();
    died.resolve();
    return new Promise(() => {}); // written, and no step further
  };
  holder.acquire({ wait: true }).catch(() => {}); // never told
  for (let renewals = 1; renewals < crashAt; renewals++) await clock.advance(4_000);
  await died.promise;
  await settled(); // its clock stands still from here on
  return { memory, store, underWay };
}

Deno.test("a crash of the lease holder at any put leaves a memory by which the next one returns at once", async () => {
  for (const when of ["before the put", "put, not landed", "put, landed"] as const) {
    for (const landsLate of when === "put, not landed" ? [false, true] : [false]) {
      for (let crashAt = 1; crashAt <= 4; crashAt++) {
        const { memory, store, underWay } = await crash(when, crashAt);
        const next = new ScriptedStore();
        for (const [key, body] of store.objects) next.objects.set(key, body);
        let pending = landsLate;
        next.onPut = () => { // the dead one's put arrives just before the successor's first
          if (pending && next.text("lease.json") === underWay.standing) {
            next.write("lease.json", underWay.text);
          }
          pending = false;
        };
        const successor = bench({ memory: new TestMemory(memory.kept) }, {
          store: next,
          clock: new VirtualClock(),
        });
        const what = `${when}${landsLate ? ", landed late" : ""}, put ${crashAt}`;
        await successor.holder.acquire({ wait: false });
        assert.equal(successor.clock.monotonicMs(), 1_000, `${what}: no time passed`);
        assert.equal(next.puts.length, landsLate ? 2 : 1, what);
        await end(successor);
      }
    }
  }
});

Deno.test("lease holder goes on without a memory that fails or does not answer, and counts from before it", async () => {
  const failing = new TestMemory();
  failing.answer = () => Promise.reject(new Error("read-only file system"));
  const one = await held({ memory: failing });
  assert.equal(one.holder.status.remainingMs, BELIEF_MS);
  await one.clock.advance(20_000);
  one.holder.assertHeld();
  await end(one);

  const stuck = new TestMemory();
  stuck.answer = () => new Promise(() => {});
  const two = bench({ memory: stuck });
  const acquired = two.holder.acquire({ wait: false });
  await two.clock.advance(499);
  assert.equal(two.store.puts.length, 0);
  await two.clock.advance(1);
  assert.equal((await acquired).token, 1);
  assert.equal(two.holder.status.remainingMs, BELIEF_MS - 500);
  await two.clock.advance(20_000);
  two.holder.assertHeld();
  await end(two);
});

Deno.test("lease holder given up while its memory is slow sends nothing any more", async () => {
  const stuck = new TestMemory();
  const slow = Promise.withResolvers<void>();
  stuck.answer = () => slow.promise;
  const made = bench({ memory: stuck });
  const cancel = new AbortController();
  const rejected = assert.rejects(made.holder.acquire({ wait: true, signal: cancel.signal }), /enough/);
  await settled();
  assert.equal(stuck.writes.length, 1);
  cancel.abort(new Error("enough"));
  await rejected;
  const released = assert.rejects(made.holder.release({ timeoutMs: 100 }), code("timeout"));
  await made.clock.advance(100);
  await released;
  slow.resolve(); // too late: the claim is nobody's any more
  await settled();
  await made.clock.advance(10_000);
  assert.equal(made.store.puts.length, 0);
  await end(made);
});

Deno.test("lease memory is emptied by a release, and kept when that is not confirmed", async () => {
  const memory = new TestMemory();
  const made = await held({ memory });
  await made.holder.release();
  await settled();
  assert.equal(memory.kept.length, 0);
  await made.holder.acquire({ wait: false });
  made.store.spoil = () => "hang";
  const rejected = assert.rejects(made.holder.release({ timeoutMs: 100 }), code("timeout"));
  await made.clock.advance(100);
  await rejected;
  assert.ok(memory.kept.includes(recordIn(made.store).nonce));
  await end(made);
});

// The memory in a file.

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "state-manager-memory-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const PLACE = { bootId: "boot-1", lockIdentity: "1:2" };

Deno.test("lease memory in a file is inherited under the same boot and the same lock only", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/lease_memory.json`;
    const open = (place: typeof PLACE | null, predecessorIsDead = true) =>
      openLeaseMemory({ path, holder: "m", place, predecessorIsDead });
    const first = await open(PLACE);
    assert.deepEqual(first.inherited, []);
    await first.remember(["a", "b"]);
    assert.deepEqual(JSON.parse(await Deno.readTextFile(path)), {
      v: 1,
      boot_id: "boot-1",
      lock: "1:2",
      holder: "m",
      nonces: ["a", "b"],
    });
    assert.deepEqual((await open(PLACE)).inherited, ["a", "b"]);
    assert.deepEqual((await open({ ...PLACE, bootId: "boot-2" })).inherited, []);
    assert.deepEqual((await open({ ...PLACE, lockIdentity: "1:3" })).inherited, []);
    assert.deepEqual((await open(PLACE, false)).inherited, [], "its writer may be alive");
    const nowhere = await open(null);
    assert.deepEqual(nowhere.inherited, []);
    await nowhere.remember(["c"]);
    assert.deepEqual((await open(PLACE)).inherited, ["a", "b"], "one that knows no place wrote nothing");
    await first.remember([]);
    assert.deepEqual((await open(PLACE)).inherited, []);
    await first.remember(Array.from({ length: 40 }, (_, i) => `n${i}`));
    assert.equal((await open(PLACE)).inherited.at(-1), "n39", "the newest are kept");
    assert.deepEqual(await Array.fromAsync(Deno.readDir(folder), ({ name }) => name), ["lease_memory.json"]);
  });
});

Deno.test("lease memory in a file that is damaged is none", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/lease_memory.json`;
    const whole = { v: 1, boot_id: "boot-1", lock: "1:2", holder: "m", nonces: ["a"] };
    const texts = [
      "",
      "{",
      "null",
      "[]",
      JSON.stringify({ ...whole, v: 2 }),
      JSON.stringify({ ...whole, nonces: "a" }),
      JSON.stringify({ ...whole, nonces: [1] }),
      JSON.stringify({ ...whole, nonces: [""] }),
      JSON.stringify({ ...whole, nonces: ["x".repeat(200)] }),
      JSON.stringify({ ...whole, nonces: Array.from({ length: 99 }, (_, i) => `${i}`) }),
      JSON.stringify(whole) + " ".repeat(99_999),
    ];
    for (const text of texts) {
      await Deno.writeTextFile(path, text);
      const { inherited } = await openLeaseMemory({
        path,
        holder: "m",
        place: PLACE,
        predecessorIsDead: true,
      });
      assert.deepEqual(inherited, [], text.slice(0, 80));
    }
    await Deno.writeTextFile(path, JSON.stringify(whole));
    assert.deepEqual(
      (await openLeaseMemory({ path, holder: "m", place: PLACE, predecessorIsDead: true })).inherited,
      ["a"],
    );
  });
});

Deno.test("lease memory in a file ends with the newest when many are written at once, and says when it cannot", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/lease_memory.json`;
    const memory = await openLeaseMemory({ path, holder: "m", place: PLACE, predecessorIsDead: true });
    await Promise.all(Array.from({ length: 50 }, (_, i) => memory.remember([`n${i}`])));
    assert.deepEqual(
      (await openLeaseMemory({ path, holder: "m", place: PLACE, predecessorIsDead: true })).inherited,
      ["n49"],
    );
    const nowhere = await openLeaseMemory({
      path: `${folder}/none/x`,
      holder: "m",
      place: PLACE,
      predecessorIsDead: true,
    });
    await assert.rejects(nowhere.remember(["a"]), code("local-io"));
    await assert.rejects(nowhere.remember(["b"]), code("local-io"));
  });
});

Deno.test("a file system that gives no locks is told as that, not as another manager's", async () => {
  await inFolder((folder) => {
    const closed: number[] = [];
    const asked: number[] = [];
    const refusing = (...errnos: number[]): LockCalls => ({
      open: () => 1_000_000,
      lock: (descriptor) => asked.push(descriptor) <= errnos.length ? -1 : 0,
      close: (descriptor) => void closed.push(descriptor),
      errno: () => errnos[asked.length - 1] ?? 0,
    });
    const [interrupted, held, noLocks, notSupported] = [4, 11, 37, 95];
    assert.equal(lockFolder(`${folder}/manager.lock`, refusing(interrupted, held)), null);
    assert.equal(asked.length, 2);
    for (const errno of [noLocks, notSupported]) {
      asked.length = 0;
      assert.throws(
        () => lockFolder(`${folder}/manager.lock`, refusing(errno)),
        (error: StateManagerError) => {
          assert.equal(error.code, "data-dir-unwritable");
          assert.match(error.message, new RegExp(`os error ${errno}`));
          assert.match(error.hint ?? "", /locks/);
          return true;
        },
      );
    }
    assert.equal(closed.length, 3);
    assert.throws(
      () => lockFolder(`${folder}/none/manager.lock`),
      (error: Error) => osErrorOf(error) === 2,
    );
    return Promise.resolve();
  });
});

Deno.test("a folder lock has an identity that a copy of the folder does not have", async () => {
  await inFolder(async (folder) => {
    const one = lockFolder(`${folder}/manager.lock`);
    assert.ok(one);
    const { identity } = one;
    assert.match(identity, /^\d+:\d+$/);
    assert.equal(lockFolder(`${folder}/manager.lock`), null);
    one.release();
    const again = lockFolder(`${folder}/manager.lock`);
    assert.equal(again?.identity, identity);
    await Deno.copyFile(`${folder}/manager.lock`, `${folder}/copy.lock`);
    const copy = lockFolder(`${folder}/copy.lock`);
    assert.notEqual(copy?.identity, identity);
    again?.release();
    copy?.release();
  });
});

Deno.test("the id of this boot that cannot be read is none that is not there", () => {
  assert.match(readBootId() ?? "", /^[0-9a-f-]{36}$/);
  assert.equal(readBootId("/proc/no-such-id"), null);
  assert.throws(() => readBootId("/proc"), (error) => isError(error, "local-io"));
});
