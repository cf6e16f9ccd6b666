/** The compiled binary as PID 1 in the smallest root: signals, 500 orphans, exit codes; as root and as nobody; by unshare and by runc. */

import assert from "node:assert/strict";
import {
  binaryPath,
  descendants,
  freePort,
  ManagerProcess,
  scratchFolder,
  waitFor,
} from "../support/manager_process.ts";
import { busybox, isRoot, makeSmallRoot, runc, unshare } from "../support/small_root.ts";

const cannot = binaryPath === null || !isRoot || busybox === null ||
  unshare === null;

/** 500 processes whose parents die at once, then a program that says which signals reach it and dies of TERM. */
const PROGRAM = [
  "/app/busybox",
  "sh",
  "-c",
  `i=0; while [ $i -lt 500 ]; do (/app/busybox sleep 0.3 &); i=$((i+1)); done
   trap 'echo got-hup' HUP; trap 'echo got-usr1' USR1; trap 'echo got-usr2' USR2
   echo ready; while :; do /app/busybox sleep 0.1; done`,
];

function managerArgs(port: number): string[] {
  return [
    "run",
    ...[
      "--directory",
      "/store",
      "--files",
      "app=/files",
      "--data-dir",
      "/data",
      "--listen",
      `127.0.0.1:${port}`,
    ],
    "--",
    ...PROGRAM,
  ];
}

/** The manager's pid as this machine sees it: the process below `outer` that runs the binary as PID 1 of its namespace. */
function innerPid(outer: number): number | null {
  for (const pid of descendants(outer)) {
    try {
      const status = Deno.readTextFileSync(`/proc/${pid}/status`);
      if (
        /^NSpid:\s+\d+\s+1$/m.test(status) &&
        /^Name:\s+state-manager/m.test(status)
      ) return pid;
    } catch {
      // gone
    }
  }
  return null;
}

function zombies(parent: number): number {
  return descendants(parent).filter((pid) => {
    try {
      const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
      const [state, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return state === "Z" && Number(ppid) === parent;
    } catch {
      return false;
    }
  }).length;
}

async function provesItself(
  manager: ManagerProcess,
  pid: number,
): Promise<void> {
  await waitFor(
    "the program",
    () => manager.stdout.includes("ready"),
    60_000,
    () => manager.tail(),
  );
  for (const signal of ["SIGHUP", "SIGUSR1", "SIGUSR2"] as const) {
    Deno.kill(pid, signal);
    const word = signal.replace("SIG", "got-").toLowerCase();
    await waitFor(
      `${signal} to be passed on`,
      () => manager.stdout.includes(word),
      60_000,
      () => manager.tail(),
    );
  }
  await waitFor(
    "500 orphans to be reaped",
    () => descendants(pid).length < 30 && zombies(pid) === 0,
    60_000,
    () => {
      return `${descendants(pid).length} descendants, ${zombies(pid)} zombies`;
    },
  );
  Deno.kill(pid, "SIGTERM");
  assert.equal(await manager.exit(), 143, manager.tail());
}

for (const user of ["root", "nobody"]) {
  Deno.test({
    name:
      `PID 1 in a namespace as ${user} forwards signals, reaps 500 orphans and exits 143 [needs binary] [needs root]`,
    ignore: cannot,
    async fn() {
      using scratch = scratchFolder();
      await Deno.chmod(scratch.path, 0o755);
      await makeSmallRoot(scratch.path);
      const port = freePort();
      const change = user === "root" ? [] : ["--userspec=65534:65534"];
      await using manager = new ManagerProcess({
        args: managerArgs(port),
        port,
        wrap: [
          "unshare",
          "--pid",
          "--fork",
          "--kill-child",
          `--mount-proc=${scratch.path}/proc`,
          "chroot",
          ...change,
          scratch.path,
        ],
        program: "/state-manager",
      });
      const pid = await waitFor(
        "PID 1",
        () => innerPid(manager.pid),
        60_000,
        () => manager.tail(),
      );
      await manager.state("running");
      await provesItself(manager, pid);
    },
  });
}

for (const uid of [0, 65534]) {
  Deno.test({
    name:
      `PID 1 under runc as uid ${uid} with a read-only root does the same [needs binary] [needs root] [needs runc]`,
    ignore: cannot || runc === null,
    async fn() {
      using scratch = scratchFolder();
      await Deno.chmod(scratch.path, 0o755);
      const root = `${scratch.path}/rootfs`;
      await Deno.mkdir(root);
      await makeSmallRoot(root);
      const port = freePort();
      const spec = {
        ociVersion: "1.0.2",
        process: {
          terminal: false,
          user: { uid, gid: uid },
          args: ["/state-manager", ...managerArgs(port)],
          env: ["PATH=/app", "HOME=/data", "TMPDIR=/tmp"],
          cwd: "/",
          capabilities: {
            bounding: ["CAP_KILL"],
            effective: ["CAP_KILL"],
            permitted: ["CAP_KILL"],
          },
        },
        root: { path: "rootfs", readonly: true },
        mounts: [
          { destination: "/proc", type: "proc", source: "proc" },
          {
            destination: "/dev",
            type: "tmpfs",
            source: "tmpfs",
            options: ["nosuid", "mode=755"],
          },
          ...["store", "data", "files", "tmp"].map((name) => ({
            destination: `/${name}`,
            type: "bind",
            source: `${root}/${name}`,
            options: ["rbind", "rw"],
          })),
        ],
        linux: {
          namespaces: [{ type: "pid" }, { type: "mount" }, { type: "ipc" }, {
            type: "uts",
          }],
        },
      };
      await Deno.writeTextFile(
        `${scratch.path}/config.json`,
        JSON.stringify(spec),
      );
      const id = `state-manager-test-${Deno.pid}-${uid}`;
      const runcRoot = `${scratch.path}/runc-state`;
      try {
        await using manager = new ManagerProcess({
          args: [],
          port,
          wrap: [
            runc ?? "runc",
            "--root",
            runcRoot,
            "run",
            "--bundle",
            scratch.path,
            id,
          ],
          program: null,
        });
        const pid = await waitFor(
          "PID 1",
          () => innerPid(manager.pid),
          60_000,
          () => manager.tail(),
        );
        await provesItself(manager, pid);
      } finally {
        await new Deno.Command(runc ?? "runc", {
          args: ["--root", runcRoot, "delete", "--force", id],
          stdout: "null",
          stderr: "null",
        }).output();
      }
    },
  });
}
