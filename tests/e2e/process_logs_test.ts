/** Output of programs end to end: log files, crash files, the commands; full disks, endless lines, readers that stall. */

import assert from "node:assert/strict";
import { ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { canMount, tool } from "../support/mounts.ts";

/** A line of this many bytes: that of the specification where the variable asks for it. */
const LINE_BYTES = Deno.env.get("STATE_MANAGER_TEST_LONG") === undefined ? 256 << 20 : 1 << 30;

function start(root: string, processes: unknown, wrap?: readonly string[]): ManagerProcess {
  const config = `${root}/config.json`;
  const stored = { storage: { directory: `${root}/store` }, checkpoint: { interval: "1h" }, processes };
  Deno.writeTextFileSync(config, JSON.stringify(stored), { mode: 0o600 });
  return new ManagerProcess({
    args: ["--config", config, "--data-dir", `${root}/data`],
    ...(wrap === undefined ? {} : { wrap }),
  });
}

const shell = (command: string) => ({ command, shell: true, essential: false });

function textOf(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

/** Memory of the manager itself. */
function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(textOf(`/proc/${pid}/status`))?.[1]) * 1024;
}

Deno.test("a program's log file has every line of it, in order over its rotations, and is opened anew on SIGUSR1", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/logs/counts.log`;
  const count = 250_000;
  await using manager = start(scratch.path, {
    counts: {
      ...shell(`seq ${count}; trap 'echo again' HUP; echo done >&2; while :; do sleep 0.05; done`),
      logs: { path, max_size: "256KiB", max_files: 4 },
    },
  });
  await manager.state("running");
  const textsNow = () => [3, 2, 1].map((number) => textOf(`${path}.${number}`));
  const wholeNow = () => [...textsNow(), textOf(path)].join("");
  // On a machine that stands still between two reads the word of the other stream may come before the last numbers.
  const isThere = (line: string) => wholeNow().includes(`\n${line}\n`);
  await waitFor("the last lines", () => isThere(`${count}`) && isThere("done"), 60_000, () => manager.tail());
  const texts = textsNow();
  const whole = wholeNow().replace("\ndone\n", "\n");
  const expected = Array.from({ length: count }, (_, i) => `${i + 1}\n`).join("");
  assert.ok(texts.every((text) => text.length > 0 && text.length <= 256 * 1024));
  assert.ok(expected.endsWith(whole), `${whole.length} of ${expected.length} bytes`);
  assert.equal(manager.stdout, "", "with a file nothing is passed on unless it is asked for");
  const [{ pid }] = (await manager.json("/processes")).processes;
  await Deno.rename(path, `${path}.moved`);
  manager.signal("SIGUSR1");
  await waitFor("the new file", () => {
    Deno.kill(pid, "SIGHUP");
    return textOf(path).includes("again\n");
  });
});

Deno.test("logs reads rotated files back beyond memory, the same with the manager and without it", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/logs/counts.log`;
  const count = 30_000;
  await using manager = start(scratch.path, {
    counts: {
      ...shell(`seq ${count}; exec sleep 1000`),
      logs: { path, max_size: "64KiB", max_files: 20, compression: "zstd" },
    },
    quiet: shell("exec sleep 1000"),
  });
  await manager.state("running");
  await waitFor("the last line", () => textOf(path).endsWith(`\n${count}\n`), 60_000, () => manager.tail());
  const place = ["--data-dir", `${scratch.path}/data`, "--config", `${scratch.path}/config.json`];
  const run = async (...argv: string[]) => {
    const { code, stdout, stderr } = await runProgram(["logs", ...argv, ...place]);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  const last = (lines: number) =>
    Array.from({ length: lines }, (_, i) => `${count - lines + i + 1}\n`).join("");
  const check = async () => {
    assert.ok(await run("counts", "--tail", "23456") === last(23_456), "rotated files");
    assert.ok(await run("counts", "--since", "1h") === last(count), "all");
    assert.equal((await run("counts", "--tail", "all", "--text", "777")).split("\n")[0], "777");
  };
  await check();
  const [first = ""] = (await run("counts", "--tail", "20000", "--json")).split("\n");
  assert.equal(JSON.parse(first).text, String(count - 20_000 + 1));
  manager.signal("SIGTERM");
  await manager.exit();
  await check();
  assert.ok(await run("counts") === last(1_000), "memory's worth");
  const { code } = await runProgram(["logs", "quiet", ...place]);
  assert.equal(code, 69, "what was kept in memory is gone");
});

Deno.test("the commands show what processes say and what they said before they fell", async () => {
  using scratch = scratchFolder();
  await using manager = start(scratch.path, {
    web: shell("echo serving; echo warning >&2; exec sleep 1000"),
    bad: {
      ...shell('echo "key is $API_KEY?" | tr a-z A-Z; echo last words >&2; exit 3'),
      restart: "no",
      env: { SECRET_TOKEN: "do-not-write-me" },
    },
  });
  await manager.state("running");
  const run = async (...argv: string[]) => {
    const { code, stdout, stderr } = await runProgram([...argv, "--data-dir", `${scratch.path}/data`]);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  await waitFor("both streams", async () => (await run("logs", "web")).split("\n").length === 3);
  assert.deepEqual((await run("logs", "web")).trimEnd().split("\n").sort(), ["serving", "warning"]);
  assert.equal(await run("logs", "web", "--stream", "stderr"), "warning\n");
  const all = await run("logs", "web", "bad");
  assert.match(all, /^web \| serving$/m);
  assert.match(all, /^bad \| last words$/m);
  const [line] = (await run("logs", "web", "--text", "serv", "--json")).trimEnd().split("\n");
  assert.equal(JSON.parse(line ?? "").text, "serving");

  const listed = await waitFor("the crash", async () => {
    const { crashes } = JSON.parse(await run("crashes", "bad", "--json"));
    return crashes.length > 0 ? crashes : null;
  });
  assert.equal(listed[0].cause, "exit-3");
  const text = await run("crashes", "bad", "latest");
  assert.match(text, /^process: bad\n[^]*cause: exit code 3\n[^]*stderr last words\n/);
  assert.match(text, /^environment: .*\bSECRET_TOKEN\b/m);
  assert.ok(!text.includes("do-not-write-me"), text);
  assert.match(manager.stdout, /^web \| serving$/m);
  assert.match(manager.stderr, /^web \| warning$/m);
});

Deno.test("a follower over HTTP hears what comes, and a stop of the manager ends it", async () => {
  using scratch = scratchFolder();
  await using manager = start(scratch.path, {
    ticks: shell("i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.02; done"),
  });
  await manager.state("running");
  const response = await manager.fetch("/processes/ticks/logs?follow=true&tail=0", {
    headers: { accept: "text/plain" },
  });
  let text = "";
  let isAsked = false;
  for await (const chunk of (response.body ?? new ReadableStream()).pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (isAsked || text.split("\n").length < 10) continue;
    manager.signal("SIGTERM");
    isAsked = true;
  }
  const numbers = [...text.matchAll(/^tick (\d+)$/gm)].map(([, number]) => Number(number));
  assert.ok(numbers.length >= 9);
  assert.deepEqual(numbers, numbers.map((_, index) => (numbers[0] ?? 0) + index));
  assert.equal((await manager.ended).code, 0, manager.tail());
});

Deno.test("a line of hundreds of megabytes costs the manager no memory and no answer", async () => {
  using scratch = scratchFolder();
  await using manager = start(scratch.path, {
    endless: {
      ...shell(`sleep 1; head -c ${LINE_BYTES} /dev/zero | tr '\\0' x; echo; echo end; exec sleep 1000`),
      logs: { pass_through: false },
    },
  });
  await manager.state("running");
  const before = residentBytes(manager.pid);
  let most = 0;
  await waitFor("its end", async () => {
    most = Math.max(most, residentBytes(manager.pid));
    const { lines } = await manager.json("/processes/endless/logs?tail=1");
    return lines[0]?.text === "end";
  }, 120_000);
  assert.ok(most - before < 100 << 20, `${before} to ${most} bytes`);
});

Deno.test(
  "a log disk that is full stops neither the program nor the manager, and the file says what is missing [needs mount]",
  {
    ignore: !canMount,
  },
  async () => {
    using scratch = scratchFolder();
    const disk = `${scratch.path}/disk`;
    Deno.mkdirSync(disk);
    assert.ok(tool("mount", "-t", "tmpfs", "-o", "size=1m", "none", disk));
    try {
      await using manager = start(scratch.path, {
        talks: {
          ...shell("seq 1000000; echo written; while :; do echo again; sleep 0.1; done"),
          logs: { path: `${disk}/talks.log` },
        },
      });
      await manager.state("running");
      await waitFor("the program to be done with it", async () => {
        const { lines } = await manager.json("/processes/talks/logs?tail=1");
        return lines[0]?.text === "again";
      });
      await waitFor("the log to tell", () => /log file of talks cannot be written/.test(manager.stderr));
      Deno.truncateSync(`${disk}/talks.log`, 0);
      await waitFor("the file to go on", () => textOf(`${disk}/talks.log`).includes("again\n"));
      const dropped = /^state-manager: (\d+) lines dropped: No space left on device$/m.exec(
        textOf(`${disk}/talks.log`),
      );
      assert.ok(Number(dropped?.[1]) > 800_000, dropped?.[0] ?? textOf(`${disk}/talks.log`).slice(0, 500));
      await waitFor("the notice", () => /log file of talks is written again/.test(manager.stderr));
    } finally {
      await waitFor("the disk to be free", () => tool("umount", disk));
    }
  },
);

Deno.test("nobody reads the manager's output: programs are supervised all the same, and are not held for ever", async () => {
  using scratch = scratchFolder();
  const pipe = `${scratch.path}/pipe`;
  assert.ok(tool("mkfifo", pipe));
  const reader = await Deno.open(pipe, { read: true, write: true }); // never read
  try {
    await using manager = start(scratch.path, {
      floods: shell("seq 1000000; touch flooded; exec sleep 1000"),
      falls: {
        ...shell("sleep 0.1; exit 1"),
        restart_delay: "10ms",
        restart_max_delay: "10ms",
        start_limit: { burst: 1000, interval: "1m" },
      },
    }, ["sh", "-c", `cd ${scratch.path}; exec "$@" > ${pipe}`, "sh"]);
    await manager.state("running");
    await waitFor("restarts", async () => {
      const falls = await manager.json("/processes/falls");
      return falls.restarts >= 5;
    });
    await waitFor(
      "the flood to be over",
      () => exists(`${scratch.path}/flooded`),
    );
    manager.signal("SIGTERM");
    assert.equal((await manager.ended).code, 0, manager.tail());
  } finally {
    reader.close();
  }
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
