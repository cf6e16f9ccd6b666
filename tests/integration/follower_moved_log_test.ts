/**
 * The log begins anew while its pages are read: nothing of what was read counts, and it is read again. SQLite does that
 * where no reader of ours stands in the way; here it is done to the file itself, and undone before the next try.
 */

import assert from "node:assert/strict";
import { addToSum } from "../../src/database/wal_checksum.ts";
import { type LocalFiles, systemFiles } from "../../src/platform/local_files.ts";
import { FollowedDatabase, rows } from "../support/followed_database.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

/** The same log as it would be with other commits from its start on. */
function begunAnew(log: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const bytes = log.map((byte, at) => at < 32 ? byte : byte ^ 0xff);
  const view = new DataView(bytes.buffer);
  view.setUint32(16, view.getUint32(16) + 1);
  view.setUint32(20, view.getUint32(20) ^ 0xffffffff);
  const sum = { sum1: 0, sum2: 0 };
  addToSum(sum, bytes, 0, 24, (view.getUint32(0) & 1) === 1);
  view.setUint32(24, sum.sum1);
  view.setUint32(28, sum.sum2);
  return bytes;
}

/** Files whose next new one finds that the log has begun anew; whatever is removed after it, it is the old one again. */
class MovingLog {
  moved = 0;
  isArmed = false;
  path = "";
  #kept: Uint8Array<ArrayBuffer> | null = null;

  readonly files: LocalFiles = {
    ...systemFiles,
    create: (path, mode) => {
      if (this.isArmed) this.#move();
      return systemFiles.create(path, mode);
    },
    removeTree: (path) => {
      this.restore();
      return systemFiles.removeTree(path);
    },
    remove: (path) => {
      this.restore();
      return systemFiles.remove(path);
    },
  };

  restore(): void {
    if (this.#kept !== null) this.#write(this.#kept);
    this.#kept = null;
  }

  #move(): void {
    this.isArmed = false;
    this.moved++;
    this.#kept = Deno.readFileSync(`${this.path}-wal`);
    this.#write(begunAnew(this.#kept));
  }

  #write(bytes: Uint8Array): void {
    using file = Deno.openSync(`${this.path}-wal`, { write: true });
    assert.equal(file.writeSync(bytes), bytes.length);
  }
}

for (const journal of ["follow", "snapshot"] as const) {
  Deno.test(`follower (${journal}) takes nothing of a log that begins anew while it is read`, async () => {
    const clock = new VirtualClock();
    const log = new MovingLog();
    await using scene = await FollowedDatabase.wal({ journal, clock, files: log.files });
    log.path = scene.path;
    const follower = await scene.start();
    await scene.synced();
    await scene.program.run("app", rows(40));
    log.isArmed = true;
    const { changed } = await follower.sync({ now: true });
    log.restore();
    assert.deepEqual([changed, log.moved], [true, 1]);
    await scene.assertSame();
    await scene.program.run("app", rows(3));
    await follower.sync({ now: true });
    await scene.assertSame();
    assert.equal(follower.status.snapshots, 1, "the first");
  });
}
