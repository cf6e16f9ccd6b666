/** Where a follower may go on reading, and when it checkpoints: every row of the table. */

import assert from "node:assert/strict";
import {
  decideAtStart,
  decideCheckpoint,
  decideLive,
  type LogPoint,
  type LogView,
  NO_EVIDENCE,
  retryDelayMs,
  type StartFacts,
} from "../../src/database/follow_rules.ts";

const position: LogPoint = { offset: 4152, sum1: 3, sum2: 4, salt1: 10, salt2: 20 };
const log = (salt1: number, sizeBytes = 8272): LogView => ({
  kind: "log",
  sizeBytes,
  pageSize: 4096,
  salt1,
  salt2: salt1 === 10 ? 20 : 99,
});
const EMPTY: LogView = { kind: "empty" };
const TORN: LogView = { kind: "torn" };

Deno.test("decideLive goes on in the same log, in the next one only when nothing can be missing", () => {
  const proven = { proven: true, pageSize: 4096 };
  const doubt = { proven: false, pageSize: 4096 };
  const cases: [LogPoint | null, LogView, typeof proven, string][] = [
    [position, log(10), proven, "continue"],
    [position, log(10), doubt, "continue"],
    [position, log(11), proven, "restart"],
    [position, log(11), doubt, "log-restarted"],
    [position, log(77), proven, "restart"], // the log was emptied, and SQLite chose new salts
    [position, log(10, 4000), proven, "log-overwritten"],
    [position, EMPTY, proven, "wait"],
    [position, EMPTY, doubt, "log-restarted"],
    [position, TORN, proven, "wait"],
    [position, TORN, doubt, "wait"],
    [null, EMPTY, doubt, "wait"],
    [null, log(5), doubt, "restart"],
    [null, { ...log(5), pageSize: 512 } as LogView, proven, "page-size-changed"],
  ];
  for (const [at, view, facts, wanted] of cases) {
    const decision = decideLive(at, view, facts);
    assert.equal(
      decision.kind === "snapshot" ? decision.reason : decision.kind,
      wanted,
      JSON.stringify([at, view]),
    );
  }
});

const noted = { position, pageSize: 4096, sameFile: true, untouched: false };
const known: StartFacts = {
  txid: 5,
  baseline: null,
  damaged: false,
  noted,
  log: log(10),
  evidence: { ...NO_EVIDENCE, chainHolds: true },
};
const ended = { chainHolds: false, lastFrameLeft: true, nothingFollowed: true };
const untouched = { ...noted, untouched: true };

Deno.test("decideAtStart goes on only with proof, and says which one is missing", () => {
  const cases: [string, Partial<StartFacts>, string][] = [
    ["nothing local", { txid: null, noted: null }, "first-contact"],
    ["nothing local, restored", { txid: null, noted: null, baseline: 4, log: EMPTY }, "wait"],
    ["nothing local, restored, log torn", { txid: null, noted: null, baseline: 4, log: TORN }, "wait"],
    ["nothing local, restored, log begun", { txid: null, noted: null, baseline: 4 }, "log-before-baseline"],
    [
      "restored, seen before, untouched",
      { txid: null, baseline: 4, noted: { ...untouched, position: null } },
      "restart",
    ],
    [
      "restored, seen before, written",
      { txid: null, baseline: 4, noted: { ...noted, position: null } },
      "log-gone",
    ],
    ["only damaged", { txid: null, noted: null, damaged: true, baseline: 4 }, "local-damaged"],
    ["newest damaged", { damaged: true }, "local-damaged"],
    ["no note", { noted: null }, "position-unknown"],
    ["other file", { noted: { ...noted, sameFile: false } }, "database-replaced"],
    ["other page size", { noted: { ...noted, pageSize: 512 } }, "page-size-changed"],
    ["same log", {}, "continue"],
    ["same log, other frames", { evidence: NO_EVIDENCE }, "log-overwritten"],
    [
      "same log, other frames, file untouched",
      { evidence: NO_EVIDENCE, noted: untouched },
      "log-overwritten",
    ],
    ["no log", { log: EMPTY }, "log-gone"],
    ["no log, file untouched", { log: EMPTY, noted: untouched }, "wait"],
    ["other log, file untouched", { log: log(77), noted: untouched }, "restart"],
    ["next log, end of the last one read", { log: log(11), evidence: ended }, "restart"],
    [
      "next log, end overwritten",
      { log: log(11), evidence: { ...ended, lastFrameLeft: false } },
      "log-restarted",
    ],
    [
      "next log, more had come",
      { log: log(11), evidence: { ...ended, nothingFollowed: false } },
      "log-restarted",
    ],
    ["the log after the next", { log: log(12), evidence: ended }, "log-restarted"],
    ["from copies to a log", { noted: { ...noted, position: null } }, "log-gone"],
  ];
  for (const [name, facts, wanted] of cases) {
    const decision = decideAtStart({ ...known, ...facts });
    assert.equal(decision.kind === "snapshot" ? decision.reason : decision.kind, wanted, name);
  }
});

Deno.test("decideAtStart knows the next log where the salt wraps round", () => {
  const last = { ...noted, position: { ...position, salt1: 0xffffffff } };
  assert.equal(decideAtStart({ ...known, noted: last, log: log(0), evidence: ended }).kind, "restart");
});

Deno.test("decideCheckpoint acts on size, then age; is patient when held up; cuts only what is empty of news", () => {
  const limits = {
    checkpointPages: 1000,
    barrierPages: 4000,
    checkpointIntervalMs: 60_000,
    walBytes: 1_000_000,
  };
  const quiet = {
    pages: 1,
    logPages: 1,
    fileBytes: 0,
    synced: true,
    sinceWholeMs: 0,
    sinceAttemptMs: Infinity,
    heldUp: 0,
  };
  const cases: [Partial<typeof quiet>, string | null][] = [
    [{}, null],
    [{ pages: 1000 }, "reader"],
    [{ pages: 1000, synced: false }, null],
    [{ sinceWholeMs: 60_000 }, "reader"],
    [{ pages: 0, sinceWholeMs: 60_000 }, null],
    [{ pages: 0, fileBytes: 1_000_001 }, "cut"],
    [{ pages: 1, fileBytes: 1_000_001 }, null],
    [{ pages: 4000 }, "reader"],
    [{ pages: 4000, logPages: 4000 }, "rest"],
    [{ pages: 3999, logPages: 3999, heldUp: 1 }, "reader"],
    // Most of it is in the database, and the log goes on all the same: new commits came with each attempt.
    [{ pages: 500, logPages: 4000 }, "rest"],
    [{ pages: 500, logPages: 3999 }, null],
    [{ pages: 500, logPages: 4000, heldUp: 1 }, "barrier"],
    [{ pages: 0, logPages: 4000 }, null],
    [{ pages: 500, logPages: 4000, heldUp: 1, sinceAttemptMs: 999 }, null],
    [{ pages: 500, logPages: 4000, heldUp: 5, sinceAttemptMs: 15_999 }, null],
    [{ pages: 500, logPages: 4000, heldUp: 5, sinceAttemptMs: 16_000 }, "barrier"],
    [{ pages: 500, logPages: 4000, heldUp: 500, sinceAttemptMs: 60_000 }, "barrier"],
    [{ pages: 0, fileBytes: 1_000_001, heldUp: 1, sinceAttemptMs: 10 }, null],
  ];
  for (const [facts, wanted] of cases) {
    assert.equal(decideCheckpoint({ ...quiet, ...facts }, limits), wanted, JSON.stringify(facts));
  }
});

Deno.test("retryDelayMs doubles to a minute", () => {
  assert.deepEqual([0, 1, 2, 3, 8, 1000].map(retryDelayMs), [0, 500, 1000, 2000, 60_000, 60_000]);
});
