/**
 * The main job: a program keeps writing thousands of files and a SQLite database; the machine dies; another machine
 * restores exactly the last finished checkpoint, and the program goes on. After SIGTERM: exactly the last state.
 */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { RACY_NS } from "../../src/checkpoint/scan_cache.ts";
import {
  binaryPath,
  ManagerProcess,
  runProgram,
  scratchFolder,
  waitFor,
} from "../support/manager_process.ts";
import { isRoot } from "../support/small_root.ts";
import { testOnStores, type TestStore } from "../support/test_stores.ts";
import { hashTree, makeTree } from "../support/tree_model.ts";

/** To the store that is further away; what a folder does with so many, that does too. */
const FILES = 10_000;
const FILES_IN_FOLDER = 4_000;
const NOBODY = 65534;

/** Writes on in `work/` and in the database until it is killed; never touches the model tree beside it. */
const WRITER = new URL("../support/busy_writer.ts", import.meta.url).pathname;

function start(
  root: string,
  store: TestStore,
  program: readonly string[],
  as?: { readonly uid: number; readonly program: string },
): ManagerProcess {
  for (const folder of [`${root}/files`, `${root}/data`]) {
    Deno.mkdirSync(folder, { recursive: true });
  }
  if (as !== undefined) {
    for (const folder of [root, `${root}/files`, `${root}/data`]) {
      Deno.chownSync(folder, as.uid, as.uid);
    }
  }
  return new ManagerProcess({
    args: [
      "run",
      ...store.args,
      ...[
        "--files",
        `app=${root}/files`,
        "--data-dir",
        `${root}/data`,
        "--checkpoint-interval",
        "1h",
        "--lease-ttl",
        "4s",
        // The last checkpoint is of ten thousand files, on a disk that others may use.
        "--shutdown-budget",
        "100s",
      ],
      "--",
      ...program,
    ],
    env: store.env,
    ...(as === undefined ? {} : { uid: as.uid, gid: as.uid, wrap: [], program: as.program, cwd: root }),
  });
}

const writer = (
  files: string,
) => [Deno.execPath(), "run", "-A", "--quiet", "--no-config", WRITER, files];

function integrity(path: string): { check: string; rows: number } {
  const database = new DatabaseSync(path);
  try {
    const check = database.prepare("PRAGMA integrity_check").get() as {
      integrity_check: string;
    };
    const rows = database.prepare("SELECT count(*) AS n FROM log").get() as {
      n: number;
    };
    return { check: check.integrity_check, rows: rows.n };
  } finally {
    database.close();
  }
}

testOnStores(
  `thousands of files and a busy database survive kill -9 of everything, on another machine`,
  async (store) => {
    using scratch = scratchFolder();
    Deno.chmodSync(scratch.path, 0o755);
    const a = `${scratch.path}/a`;
    Deno.mkdirSync(`${a}/files/model`, { recursive: true });
    makeTree(`${a}/files/model`, {
      seed: 7,
      files: store.config["directory"] === undefined ? FILES : FILES_IN_FOLDER,
      asRoot: isRoot,
    });
    const model = await hashTree(`${a}/files/model`, {});
    let finished: { id: string };
    let rowsAtCheckpoint: number;
    {
      await using manager = start(a, store, writer(`${a}/files`));
      await manager.state("running");
      await waitFor(
        "the writer",
        () => Deno.statSync(`${a}/files/work/0`).isFile,
      );
      rowsAtCheckpoint = Number(
        await waitFor(
          "rows",
          () => Deno.readTextFileSync(`${a}/files/work/rows`) || null,
        ),
      );
      finished = (await manager.checkpoint("the last one that ended")).checkpoint;
      // Another one is under way when everything dies.
      manager.fetch("/checkpoint", { method: "POST" }).then(
        (response) => response.body?.cancel(),
        () => {},
      );
      await waitFor(
        "more rows",
        () =>
          Number(Deno.readTextFileSync(`${a}/files/work/rows`)) >
            rowsAtCheckpoint + 20,
      );
      await manager.killTree();
    }
    const list = await runProgram([
      "checkpoint",
      "list",
      "--json",
      ...store.args,
    ], { env: store.env });
    assert.equal(list.code, 0, list.stderr);
    const last = JSON.parse(list.stdout).checkpoints.at(-1);

    // Another machine: other folders, empty caches.
    const b = `${scratch.path}/b`;
    {
      await using manager = start(b, store, writer(`${b}/files`));
      const status = await manager.state("running", 120_000);
      assert.equal(status.files[0].checkpoint, last.id);
      assert.ok(last.n >= 1 && finished.id <= last.id);
      const restored = await hashTree(`${b}/files/model`, {});
      assert.equal(
        restored.hash,
        model.hash,
        firstDifference(model.lines, restored.lines),
      );
      await waitFor("the program to go on", () => {
        return Number(Deno.readTextFileSync(`${b}/files/work/rows`)) >
          rowsAtCheckpoint + 5;
      });
      manager.signal("SIGTERM");
      assert.equal(await manager.exit(), 143, manager.tail());
    }
    // After SIGTERM: exactly the last state, everything included.
    const end = await hashTree(`${b}/files`, {
      ignore: ["app.db", "app.db-wal", "app.db-shm"],
    });
    // Only now: a look into the database makes and removes files beside it.
    const { check, rows } = integrity(`${b}/files/app.db`);
    assert.equal(check, "ok");
    assert.ok(rows >= rowsAtCheckpoint);

    const c = `${scratch.path}/c`;
    {
      await using manager = start(c, store, ["sleep", "100000"]);
      await manager.state("running", 120_000);
      const restored = await hashTree(`${c}/files`, {
        ignore: ["app.db", "app.db-wal", "app.db-shm"],
      });
      assert.equal(
        restored.hash,
        end.hash,
        firstDifference(end.lines, restored.lines),
      );
      assert.deepEqual(
        integrity(`${c}/files/app.db`),
        integrity(`${b}/files/app.db`),
      );
    }
  },
);

testOnStores(
  "another user restores everything but what only root may do, and says so [needs binary] [needs root]",
  async (store) => {
    using scratch = scratchFolder();
    Deno.chmodSync(scratch.path, 0o755);
    const a = `${scratch.path}/a`;
    Deno.mkdirSync(`${a}/files`, { recursive: true });
    makeTree(`${a}/files`, { seed: 11, files: 300, asRoot: false });
    const model = await hashTree(`${a}/files`, {});
    {
      await using manager = start(a, store, ["sleep", "100000"]);
      await manager.state("running");
      manager.signal("SIGTERM");
      assert.equal(await manager.exit(), 143, manager.tail());
    }
    if (store.config["directory"] !== undefined) {
      await new Deno.Command("chown", {
        args: ["-R", `${NOBODY}:${NOBODY}`, String(store.config["directory"])],
      }).output();
    }
    // Where the build lies may be closed to others.
    const program = `${scratch.path}/state-manager`;
    Deno.copyFileSync(binaryPath ?? "", program);
    Deno.chmodSync(program, 0o755);
    const b = `${scratch.path}/b`;
    await using manager = start(b, store, ["sleep", "100000"], { uid: NOBODY, program });
    await manager.state("running", 60_000);
    const restored = await hashTree(`${b}/files`, {});
    const wanted = model.lines.map(ownedByNobody);
    assert.deepEqual(restored.lines, wanted, firstDifference(wanted, restored.lines));
    assert.match(manager.stderr, /own/);
  },
  binaryPath === null || !isRoot,
);

testOnStores(
  "a second checkpoint after small edits sends little, and finds an edit that keeps size and mtime",
  async (store) => {
    using scratch = scratchFolder();
    const a = `${scratch.path}/a`;
    Deno.mkdirSync(`${a}/files`, { recursive: true });
    const noise = new Uint8Array(1 << 20);
    for (let i = 0; i < 24; i++) {
      for (let at = 0; at < noise.length; at += 65536) {
        crypto.getRandomValues(noise.subarray(at, at + 65536));
      }
      Deno.writeFileSync(`${a}/files/big${i}`, noise);
    }
    for (let i = 0; i < 2000; i++) {
      Deno.writeTextFileSync(
        `${a}/files/small${i}`,
        `small file ${i}\n`.repeat(20),
      );
    }
    // What changed within this time of a scan is read again by the next one, since its times prove nothing yet.
    const writtenMs = Date.now();
    await waitFor("the files to be older than that", () => Date.now() - writtenMs > Number(RACY_NS) / 1e6);
    await using manager = start(a, store, ["sleep", "100000"]);
    await manager.state("running");
    await waitFor(
      "the first checkpoint",
      async () => (await manager.json("/checkpoints")).checkpoints.length === 1,
      60_000,
    );

    // Whole new files of incompressible bytes: the changed bytes are known exactly.
    let changed = 0;
    for (let i = 0; i < 4; i++) {
      for (let at = 0; at < noise.length; at += 65536) {
        crypto.getRandomValues(noise.subarray(at, at + 65536));
      }
      Deno.writeFileSync(`${a}/files/big${i}`, noise);
      changed += noise.length;
    }
    const second = await manager.checkpoint();
    const manifestAllowance = 512 * 1024;
    assert.ok(
      second.totals.bytes_transferred <= changed * 1.2 + manifestAllowance,
      `${second.totals.bytes_transferred} bytes sent for ${changed} changed`,
    );
    assert.ok(
      second.totals.bytes_read <= changed * 1.2,
      `${second.totals.bytes_read} bytes read for ${changed} changed`,
    );

    const path = `${a}/files/small7`;
    const before = Deno.statSync(path);
    Deno.writeTextFileSync(path, "SMALL file 7\n".repeat(20));
    Deno.utimeSync(path, before.atime ?? 0, before.mtime ?? 0);
    assert.equal(Deno.statSync(path).size, before.size);
    const third = await manager.checkpoint();
    assert.notEqual(
      third.checkpoint.files.app.manifest_sha256,
      second.checkpoint.files.app.manifest_sha256,
    );
    const to = `${scratch.path}/to`;
    const restore = await runProgram(["restore", ...store.args, "--to", to], {
      env: store.env,
    });
    assert.equal(restore.code, 0, restore.stderr);
    assert.equal(
      Deno.readTextFileSync(`${to}/app/small7`),
      "SMALL file 7\n".repeat(20),
    );
  },
);

function firstDifference(
  wanted: readonly string[],
  got: readonly string[],
): string {
  const index = wanted.findIndex((line, i) => line !== got[i]);
  return `first difference at line ${index}:\nwanted ${wanted[index]}\ngot    ${got[index]}`;
}

/**
 * A line of `hashTree` as it must be where nobody but the restoring user could own the entry: with that owner, setuid and
 * setgid would give away other rights than they were made for, so they are left out.
 */
function ownedByNobody(line: string): string {
  return line.replace(
    /^(.*? [a-z] )([0-7]+) \d+ \d+ /s,
    (_, head, mode) => `${head}${(parseInt(mode, 8) & 0o1777).toString(8)} ${NOBODY} ${NOBODY} `,
  );
}
