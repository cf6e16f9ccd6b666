/** What tini's and dumb-init's own tests ask for: exit codes, signals both ways, signal masks. On the program as it ships. */

import assert from "node:assert/strict";
import { type Json, ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";

const CODES = Array.from({ length: 256 }, (_, code) => code);
/** With the one that keeps the manager alive these are as many processes as it can have. */
const FAILURES = CODES.slice(1);
/** Those that a shell, the kernel, sysexits.h or the manager itself give a meaning; all where the variable asks for it. */
const OWN_CODES = Deno.env.get("STATE_MANAGER_TEST_LONG") === undefined
  ? [0, 1, 2, 3, 64, 65, 69, 70, 73, 74, 75, 77, 78, 125, 126, 127, 128, 129, 130, 137, 139, 143, 254, 255]
  : CODES;
/** Starts of the manager at a time. */
const AT_A_TIME = 4;

/** By number, as Linux has them; 17 to 23 and 28 end nobody. */
const ENDING: Readonly<Record<string, number>> = {
  ...{
    SIGHUP: 1,
    SIGINT: 2,
    SIGQUIT: 3,
    SIGILL: 4,
    SIGTRAP: 5,
    SIGABRT: 6,
    SIGBUS: 7,
    SIGFPE: 8,
    SIGKILL: 9,
  },
  ...{ SIGUSR1: 10, SIGSEGV: 11, SIGUSR2: 12, SIGPIPE: 13, SIGALRM: 14, SIGTERM: 15, SIGSTKFLT: 16 },
  ...{ SIGXCPU: 24, SIGXFSZ: 25, SIGVTALRM: 26, SIGPROF: 27, SIGIO: 29, SIGPWR: 30, SIGSYS: 31 },
};
const CATCHABLE: Readonly<Record<string, number>> = {
  ...Object.fromEntries(Object.entries(ENDING).filter(([name]) => name !== "SIGKILL")),
  ...{ SIGCONT: 18, SIGTSTP: 20, SIGTTIN: 21, SIGTTOU: 22, SIGURG: 23, SIGWINCH: 28 },
};

function start(root: string, processes: Json, wrap: readonly string[] = []): ManagerProcess {
  const config = `${root}/config.json`;
  const whole = {
    storage: { directory: `${root}/store` },
    checkpoint: { interval: "1h" },
    processes: { ...processes, [KEEPER]: sh("exec sleep 1000") },
  };
  Deno.writeTextFileSync(config, JSON.stringify(whole), { mode: 0o600 });
  return new ManagerProcess({ args: ["--config", config, "--data-dir", `${root}/data`], wrap });
}

const sh = (command: string, change: Json = {}): Json => ({
  command: ["/bin/sh", "-c", command],
  essential: false,
  restart: "no",
  ...change,
});

/** Runs on, so that the manager does: it ends when all have ended. */
const KEEPER = "keeper";

/** All `count` other processes, as soon as none runs any more. */
async function ended(manager: ManagerProcess, count: number): Promise<Json[]> {
  return await waitFor(
    "all to end",
    async () => {
      const all = (await manager.json("/processes")).processes;
      const processes = all.filter(({ name }: Json) => name !== KEEPER);
      const isOver = ({ state }: Json) => state === "completed" || state === "failed";
      return processes.length === count && processes.every(isOver) && processes;
    },
    60_000,
    () => manager.tail(),
  );
}

Deno.test("every exit code is kept, and each is a success exactly where it is named as one", async () => {
  using scratch = scratchFolder();
  // Odd codes name themselves, even ones a neighbour. A code never stands for a signal of the same number.
  const success = (code: number) => [code % 2 === 1 ? code : code + 1];
  await using manager = start(scratch.path, {
    ...Object.fromEntries(
      FAILURES.map((code) => [`code${code}`, sh(`exit ${code}`, { success_exit: success(code) })]),
    ),
  });
  const wrong = (await ended(manager, FAILURES.length)).filter(({ name, state, last_exit }: Json) => {
    const code = Number(name.slice("code".length));
    return state !== (code % 2 === 1 ? "completed" : "failed") || last_exit.kind !== "exit" ||
      last_exit.code !== code;
  });
  assert.deepEqual(wrong.map(({ name }) => name), []);
});

Deno.test("every signal that ends a process is kept by its name, and is no exit code", async () => {
  using scratch = scratchFolder();
  const names = Object.keys(ENDING);
  await using manager = start(scratch.path, {
    ...Object.fromEntries(names.map((signal) => [
      signal.toLowerCase(),
      // 128 + n is another end, and none that was named.
      sh(`ulimit -c 0; kill -${ENDING[signal]} $$; exec sleep 1000`, {
        success_exit: names.indexOf(signal) % 2 === 0 ? [signal] : [128 + (ENDING[signal] ?? 0)],
      }),
    ])),
  });
  for (const { name, state, last_exit } of await ended(manager, names.length)) {
    const signal = name.toUpperCase();
    assert.deepEqual(
      [last_exit.kind, last_exit.signal, last_exit.number],
      ["signal", signal, ENDING[signal]],
      name,
    );
    assert.equal(state, names.indexOf(signal) % 2 === 0 ? "completed" : "failed", name);
  }
});

Deno.test("the manager's exit code is that of its program, or 128 and the signal that ended it", async () => {
  using scratch = scratchFolder();
  const cases = [
    ...OWN_CODES.map((code) => ({ script: `exit ${code}`, wanted: code })),
    ...Object.values(ENDING).filter((_, index) => index % 4 === 0 || OWN_CODES === CODES)
      .map((number) => ({ script: `ulimit -c 0; kill -${number} $$`, wanted: 128 + number })),
  ];
  const wrong: string[] = [];
  const queue = [...cases.entries()];
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, { script, wanted }] = next;
      const home = `${scratch.path}/${index}`;
      await using manager = new ManagerProcess({
        args: [
          "run",
          "--directory",
          `${home}/store`,
          "--data-dir",
          `${home}/data`,
          "--",
          "/bin/sh",
          "-c",
          script,
        ],
      });
      const code = await manager.exit(60_000);
      if (code !== wanted) wrong.push(`${script}: ${code}, wanted ${wanted}\n${manager.tail()}`);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
  assert.deepEqual(wrong, []);
});

Deno.test("every signal that can be caught reaches the program", async () => {
  using scratch = scratchFolder();
  const traps = Object.values(CATCHABLE).map((number) => `trap "echo got ${number}" ${number}`).join("; ");
  await using manager = start(scratch.path, {
    echo: sh(`${traps}; echo up; while :; do sleep 0.01; done`, {
      forward_signals: ["SIGHUP", "SIGUSR1", "SIGUSR2"],
    }),
  });
  const says = async (text: string, times = 1) =>
    await waitFor(
      `"${text}"`,
      async () => {
        const { lines } = await manager.json("/processes/echo/logs");
        return lines.filter((line: Json) => line.text === text).length >= times;
      },
      60_000,
      () => manager.tail(),
    );
  await manager.state("running");
  await says("up");
  for (const [signal, number] of Object.entries(CATCHABLE)) {
    await manager.json("/processes/echo/signal", { json: { signal } });
    await says(`got ${number}`);
  }
  // And those that the manager passes on when it gets them itself.
  for (const signal of ["SIGHUP", "SIGUSR1", "SIGUSR2"] as const) {
    manager.signal(signal);
    await says(`got ${CATCHABLE[signal]}`, 2);
  }
});

Deno.test("the program starts with no signal blocked, and none ignored of those that the manager takes, whatever its own parent left", async () => {
  using scratch = scratchFolder();
  await using manager = start(
    scratch.path,
    {
      plain: sh("exec cat /proc/self/status"),
      // By the helper, which runs between the manager and the command.
      helped: sh("exec cat /proc/self/status", { umask: "0027" }),
    },
    ["env", "--ignore-signal=HUP,INT,TERM,QUIT,USR1,PIPE,CHLD,TSTP", "--block-signal=USR2,TERM,CHLD,WINCH"],
  );
  await manager.state("running");
  await ended(manager, 2);
  const standard = (1n << 31n) - 1n; // beyond them libc has some of its own
  for (const name of ["plain", "helped"]) {
    const { lines } = await manager.json(`/processes/${name}/logs`);
    const mask = (field: string) =>
      BigInt(
        `0x${lines.map((line: Json) => line.text).join("\n").match(new RegExp(`${field}:\\s+(\\w+)`))?.[1]}`,
      );
    assert.equal(mask("SigBlk"), 0n, `${name} blocks`);
    assert.equal(mask("SigIgn") & standard, 0n, `${name} ignores`);
  }
});
