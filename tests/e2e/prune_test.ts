/**
 * Keeping and pruning in a running manager: what the keep rules do not want goes, files and replicated databases of what
 * stays come back, by the command line and by HTTP.
 */

import assert from "node:assert/strict";
import { chainProgram, checkChain, readJournal } from "../support/chain.ts";
import { ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { testOnStores } from "../support/test_stores.ts";

testOnStores(
  "a prune keeps what the rules want with its databases, and deletes what they do not",
  async (store) => {
    using scratch = scratchFolder();
    const { path } = scratch;
    const [database, journal] = [`${path}/db/app.db`, `${path}/journal`];
    for (const name of ["db", "files"]) Deno.mkdirSync(`${path}/${name}`);
    const program = chainProgram({ database, journal, perSecond: 50 });
    await using manager = new ManagerProcess({
      args: [
        "run",
        ...store.args,
        ...["--files", `app=${path}/files`, "--database", `main=${database}`, "--data-dir", `${path}/data`],
        ...["--checkpoint-interval", "0", "--"],
        ...program,
      ],
      env: {
        ...store.env,
        STATE_MANAGER_CHECKPOINT_KEEP_LAST: "1",
        ...Object.fromEntries(
          ["HOURLY", "DAILY", "WEEKLY", "MONTHLY"].map((
            rule,
          ) => [`STATE_MANAGER_CHECKPOINT_KEEP_${rule}`, "0"]),
        ),
        STATE_MANAGER_CHECKPOINT_KEEP_LABELS: "keep",
      },
    });
    const rowsNow = () => readJournal(journal).rows.at(-1)?.n ?? 0;
    const told: { n: number; rows: number }[] = [];
    for (let i = 1; i <= 4; i++) {
      const before = rowsNow();
      await waitFor("more rows", () => rowsNow() > before + 5, 60_000, () => manager.tail());
      Deno.writeFileSync(`${path}/files/data`, crypto.getRandomValues(new Uint8Array(50_000)));
      if (i === 2) Deno.copyFileSync(`${path}/files/data`, `${path}/second`);
      const { checkpoint } = await manager.json("/checkpoint", {
        json: { comment: `number ${i}`, labels: i === 2 ? { keep: "yes" } : {} },
      });
      told.push({ n: checkpoint.n, rows: checkpoint.databases.main.txid });
    }
    const [first, second, third, newest] = told;
    assert.ok(first !== undefined && second !== undefined && third !== undefined && newest !== undefined);
    const listed = async () => {
      const { checkpoints } = await manager.json("/checkpoints");
      return checkpoints.map(({ n }: { n: number }) => n);
    };
    const cli = (...args: string[]) =>
      runProgram(["checkpoint", ...args, "--data-dir", `${path}/data`], { env: store.env });

    const dry = await cli("prune", "--dry-run");
    assert.equal(dry.code, 0, dry.stderr);
    assert.match(dry.stdout, new RegExp(`v${first.n} .*would go`));
    assert.match(dry.stdout, new RegExp(`v${second.n} .*stays +label`));
    assert.deepEqual(await listed(), told.map(({ n }) => n));

    assert.equal((await cli("rm", `v${third.n}`, "--yes")).code, 0);
    assert.equal((await cli("rm", `v${newest.n}`, "--yes")).code, 1, "the current one stays");
    const pruned = await manager.json("/checkpoints/prune", { json: {} });
    assert.equal(pruned.deleted_checkpoints, 1);
    assert.ok(pruned.storage.dead_packs > 0 && pruned.waiting_objects > 0, JSON.stringify(pruned));
    assert.deepEqual(await listed(), [second.n, newest.n]);

    // By now the followers have heard that only two positions are kept; both are still restorable.
    const to = `${path}/restored`;
    const done = await runProgram(["restore", `v${second.n}`, ...store.args, "--to", to], { env: store.env });
    assert.equal(done.code, 0, done.stderr);
    const find = (name: string) => {
      const { stdout } = new Deno.Command("find", { args: [to, "-name", name] }).outputSync();
      return new TextDecoder().decode(stdout).trim();
    };
    assert.deepEqual(Deno.readFileSync(find("data")), Deno.readFileSync(`${path}/second`));
    const file = `${path}/old.db`;
    const back = await runProgram(
      ["db", "restore", "main", ...store.args, "--to", file, "--txid", String(second.rows)],
      { env: store.env },
    );
    assert.equal(back.code, 0, back.stderr);
    assert.ok(checkChain(file) > 0);

    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  },
);
