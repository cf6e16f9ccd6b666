import assert from "node:assert/strict";
import { FollowLink, type FollowLinkOptions } from "../../src/database/follow_client.ts";
import { type FollowedDatabase } from "../../src/database/follow_protocol.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError, type StateManagerError } from "../../src/platform/errors.ts";
import { log } from "../../src/platform/log.ts";
import { Secret } from "../../src/platform/secret.ts";
import { waitFor } from "../support/manager_process.ts";
import { scriptedFollower } from "../support/scripted_follower.ts";
import { databaseStatus } from "../support/database_status.ts";

const clock = systemClock();

const database = (name: string, more: Partial<FollowedDatabase> = {}): FollowedDatabase => ({
  name,
  path: `/nowhere/${name}.db`,
  journal: "follow",
  syncIntervalMs: 1000,
  snapshotIntervalMs: 86_400_000,
  retentionMs: 86_400_000,
  baseline: null,
  pins: [],
  ...more,
});

function link(more: Partial<FollowLinkOptions>): FollowLink {
  const made = new FollowLink({
    store: { kind: "directory", directory: "/nowhere/store" },
    token: 4,
    dataFolder: "/nowhere/data",
    databases: [database("a")],
    clock,
    log: log("test"),
    onFenced: () => assert.fail("it was not fenced"),
    ...more,
  });
  made.start();
  return made;
}

Deno.test("follow link tells its child settings, deadline and questions in their order, and gives the answers", async () => {
  using script = scriptedFollower(
    `*'"sync"'*) answer '{"txid":7}';; *'"seal"'*) answer '{"positions":{"a":8},"failures":{},"absorbed":{}}';;`,
  );
  await using follower = link({ command: script.command, databases: [database("a", { baseline: 3 })] });
  follower.deadline(1234);
  const sealed = await follower.seal();
  assert.deepEqual(sealed.positions, { a: 8 });
  assert.deepEqual(await follower.sync("a"), { txid: 7 });
  const [told = []] = script.lives();
  assert.equal(told[0]?.type, "follow");
  assert.equal(told[0]?.["token"], 4);
  assert.equal(told[0]?.["deadlineBootMs"], 1234);
  assert.deepEqual(told[0]?.["databases"], [database("a", { baseline: 3 })]);
  assert.deepEqual(told.slice(1).map(({ type }) => type), ["seal", "sync"]);
});

Deno.test("follow link replaces a child that dies, with the newest settings and the open questions", async () => {
  using script = scriptedFollower(`*'"sync"'*) [ $life -gt 1 ] && answer '{"txid":9}' || kill -9 $$;;
    *'"seal"'*) answer '{"positions":{"a":8},"failures":{},"absorbed":{}}';;`);
  await using follower = link({ command: script.command, databases: [database("a", { baseline: 3 })] });
  follower.deadline(1000);
  await follower.seal();
  follower.deadline(2000);
  follower.pins({ a: [5, 6], unknown: [1] });
  follower.add(database("b"));
  assert.deepEqual(await follower.sync("a"), { txid: 9 });
  const [, second = []] = script.lives();
  assert.equal(second[0]?.["deadlineBootMs"], 2000);
  // Sealed: what it was restored to says nothing any more about a file that programs have written to since.
  assert.deepEqual(second[0]?.["databases"], [database("a", { pins: [5, 6] }), database("b")]);
  assert.deepEqual(second.slice(1).map(({ type }) => type), ["sync"]);
  const { restarts, lastEnd, state } = follower.status();
  assert.equal(state, "following");
  assert.equal(restarts, 1);
  assert.match(lastEnd?.message ?? "", /SIGKILL/);
});

Deno.test("follow link shows lag from the child's last word on while no child speaks, and counts over restarts", async () => {
  const status = JSON.stringify({ type: "status", databases: [databaseStatus("a")], gone: [] });
  using script = scriptedFollower(
    `*'"position"'*) kill -9 $$;; *'"sync"'*) answer '{"txid":1}';;`,
    `say '${status}'`,
  );
  let seen = 0;
  await using follower = link({ command: script.command, onStatus: () => seen++ });
  await waitFor("a status", () => seen === 1);
  assert.equal(follower.status().databases[0]?.lagMs, 0);
  const asked = follower.positions();
  asked.catch(() => {}); // each child dies of it
  await waitFor("a restart", () => follower.status().restarts >= 1);
  await waitFor("a pause", () => follower.status().state === "restarting");
  const [a] = follower.status().databases;
  assert.equal(a?.state, "proving");
  await waitFor("lag", () => (follower.status().databases[0]?.lagMs ?? 0) > 0);
  assert.ok((a?.counts.syncs ?? 0) >= 3 && (a?.counts.syncs ?? 0) % 3 === 0);
  await follower.close();
  await assert.rejects(asked, (error) => isError(error, "cancelled"));
});

Deno.test("follow link that is fenced says so once, rejects what is open and starts no other child", async () => {
  const fenced =
    `{"type":"fenced","name":"a","error":{"code":"lease-lost","message":"a: token 9 was there","hint":null,"details":[]}}`;
  using script = scriptedFollower(`*'"sync"'*) say '${fenced}'; say '${fenced}';;`);
  const heard: StateManagerError[] = [];
  await using follower = link({ command: script.command, onFenced: (error) => heard.push(error) });
  await assert.rejects(follower.sync("a"), (error) => isError(error, "lease-lost"));
  await follower.close();
  assert.deepEqual(heard.map(({ code }) => code), ["lease-lost"]);
  assert.equal(follower.status().state, "fenced");
  assert.equal(script.lives().length, 1);
  await assert.rejects(follower.sync("a"), (error) => isError(error, "lease-lost"));
});

Deno.test("follow link passes on errors, gives up waiting with its caller's signal, and ends after finish", async () => {
  const error = `{"code":"not-found","message":"no database b","hint":"look","details":[]}`;
  using script = scriptedFollower(
    `*'"sync"'*) say "{\\"type\\":\\"answer\\",\\"id\\":$id,\\"result\\":null,\\"error\\":$(echo '${error}')}";;
    *'"finish"'*) answer '{"positions":{"a":5},"failures":{},"absorbed":{}}';;`,
  );
  await using follower = link({ command: script.command });
  await assert.rejects(
    follower.sync("b"),
    (thrown) => isError(thrown, "not-found") && thrown.hint === "look",
  );
  const caller = new AbortController();
  const unanswered = follower.positions({ signal: caller.signal });
  caller.abort(new Error("the caller's reason"));
  await assert.rejects(unanswered, /the caller's reason/);
  assert.deepEqual((await follower.finish()).positions, { a: 5 });
  assert.equal(follower.status().state, "finished");
  assert.equal(script.lives().length, 1);
});

Deno.test("follow link gives secrets by stdin alone, and the newest when they are renewed", async () => {
  using script = scriptedFollower(`*'"sync"'*) answer '{"txid":1}';;`);
  let key = "first";
  const credentials = () => ({ accessKey: new Secret("id"), secretKey: new Secret(key), sessionToken: null });
  const started: number[] = [];
  await using follower = link({
    command: script.command,
    store: {
      kind: "s3",
      bucket: "b",
      endpoint: "http://127.0.0.1:1",
      region: "us-east-1",
      credentials,
      forcePathStyle: true,
    },
    watchChild: () => ({ env: { SM_UNIT: "tagged" }, started: (pid) => started.push(pid), gone: () => {} }),
  });
  await follower.sync("a");
  const [pid = 0] = started;
  const seen = Deno.readTextFileSync(`/proc/${pid}/environ`) + Deno.readTextFileSync(`/proc/${pid}/cmdline`);
  assert.ok(seen.includes("SM_UNIT=tagged") && !seen.includes("first"));
  key = "second";
  follower.renewCredentials();
  await follower.sync("a");
  const [told = []] = script.lives();
  assert.equal((told[0]?.["store"] as Record<string, unknown>)["secretKey"], "first");
  assert.deepEqual(told.find(({ type }) => type === "credentials")?.["credentials"], {
    accessKey: "id",
    secretKey: "second",
    sessionToken: null,
  });
});
