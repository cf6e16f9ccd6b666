/** An interactive process on the real program, at a real (pseudo-)terminal, and with a pipe as its input. */

import assert from "node:assert/strict";
import { findTool } from "../support/find_tool.ts";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { PseudoTerminal } from "../support/pseudo_terminal.ts";

const hasTools = findTool("bash") !== null && findTool("setsid") !== null;
const SHELL = ["bash", "--norc", "--noprofile", "-i"];

const isAlive = (pid: number) => {
  try {
    return !/^State:\s+[ZX]/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch {
    return false;
  }
};

Deno.test({
  name:
    "Shell at a terminal has job control, ctrl-C, ctrl-Z and the window's size, and its code is the manager's [needs bash]",
  ignore: !hasTools,
  fn: async () => {
    using folder = scratchFolder();
    using terminal = new PseudoTerminal(31, 101);
    const store = ["--directory", `${folder.path}/store`, "--data-dir", `${folder.path}/data`];
    await using manager = new ManagerProcess({
      args: ["run", ...store, "--", ...SHELL],
      env: { PS1: "ready> ", STATE_MANAGER_LOG_LEVEL: "warn" },
      wrap: terminal.wrap,
    });
    await terminal.see(/ready> /);
    terminal.type("stty size; echo pid=$$\n");
    await terminal.see(/31 101\r/);
    const shell = Number((await terminal.see(/pid=(\d+)\r/))[1]);
    await terminal.see(/ready> /);
    assert.equal(terminal.foreground, shell);
    // A program of the shell's, in the foreground: told of the new size, ended by ctrl-C, and the shell goes on.
    terminal.type(`sh -c 'trap "stty size" WINCH; echo look"ing"; while :; do sleep 0.1; done'\n`);
    await terminal.see(/looking\r\n/);
    assert.notEqual(terminal.foreground, shell);
    terminal.resize(47, 123);
    await terminal.see(/47 123\r\n/);
    terminal.type("\x03");
    await terminal.see(/ready> /);
    terminal.type(`sh -c 'echo sleep"ing"; exec sleep 1000'\n`);
    await terminal.see(/sleeping\r/);
    terminal.type("\x1a");
    await terminal.see(/Stopped\s+sh -c/);
    terminal.type("kill %1; wait; echo still $((40 + 2))\n");
    await terminal.see(/still 42\r\n/);
    terminal.type("exit 7\n");
    assert.equal(await manager.exit(60_000), 7);
  },
});

Deno.test({
  name:
    "Terminal is the manager's again, in its old modes, when its process was killed, and the next one's when that starts [needs bash]",
  ignore: !hasTools,
  fn: async () => {
    using folder = scratchFolder();
    using terminal = new PseudoTerminal(24, 80);
    const config = {
      storage: { directory: `${folder.path}/store` },
      processes: {
        shell: { command: SHELL, interactive: true, restart: "no" },
        other: { command: ["sleep", "1000"] },
      },
      shutdown: { budget: "3s", flush_reserve: "1s" },
      log: { level: "error" },
    };
    await Deno.writeTextFile(`${folder.path}/config.json`, JSON.stringify(config));
    await using manager = new ManagerProcess({
      args: ["--config", `${folder.path}/config.json`, "--data-dir", `${folder.path}/data`],
      env: { PS1: "ready> " },
      wrap: terminal.wrap,
    });
    await terminal.see(/ready> /);
    terminal.type("stty raw -echo; exec sh -c 'echo raw; exec sleep 1000'\n");
    await terminal.see(/raw\n/);
    assert.ok(!terminal.byLines);
    const first = await manager.json("/processes/shell");
    assert.equal(terminal.foreground, first.pid);
    Deno.kill(first.pid, "SIGKILL");
    await waitFor("the terminal to be the manager's", () => terminal.foreground === manager.pid);
    await waitFor("lines on the terminal", () => terminal.byLines);
    await manager.json("/processes/shell/start", { json: {} });
    // Stopped in order: also what the shell has put into groups of their own.
    await terminal.see(/ready> /);
    terminal.type("sleep 1000 & echo job=$!\n");
    const job = Number((await terminal.see(/job=(\d+)\r/))[1]);
    assert.ok(isAlive(job));
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(60_000), 0);
    assert.ok(!isAlive(job));
  },
});

Deno.test({
  name: "Interactive process without a terminal reads the manager's input and writes its output",
  fn: async () => {
    using folder = scratchFolder();
    const store = ["--directory", `${folder.path}/store`, "--data-dir", `${folder.path}/data`];
    await using manager = new ManagerProcess({
      args: ["run", "--interactive", ...store, "--", "sed", "s/^/read /"],
      wrap: ["sh", "-c", `printf '1\\n2\\n' | "$@"`, "sh"],
    });
    assert.equal(await manager.exit(60_000), 0, manager.tail());
    assert.match(manager.stdout, /^read 1\nread 2\n$/m);
  },
});
