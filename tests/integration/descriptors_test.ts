/** A process that has no descriptor left, and gets them back. */

import assert from "node:assert/strict";
import { sendSignal } from "../../src/platform/child_process.ts";
import { httpOverSocket, httpToUrl } from "../../src/platform/control_http.ts";
import { readLines } from "../../src/platform/line_reader.ts";
import { waitFor } from "../support/manager_process.ts";

const FIXTURE = new URL("../support/fixtures/short_of_descriptors.ts", import.meta.url).pathname;
/** Beside what the runtime has open itself, and what whoever started us left to us. */
const LIMIT = 192;

function start(...args: readonly string[]): Deno.ChildProcess {
  const program = [Deno.execPath(), "run", "-A", "--no-check", FIXTURE, ...args];
  return new Deno.Command("sh", {
    args: ["-c", `ulimit -n ${LIMIT}; exec "$@"`, "sh", ...program],
    stdin: "null",
    stdout: "piped",
  }).spawn();
}

async function tell(...args: readonly string[]): Promise<unknown> {
  const { stdout, success } = await start(...args).output();
  assert.ok(success);
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test("without a descriptor left, members are still found, and a user is looked up again", async () => {
  assert.deepEqual(await tell("look"), {
    found: true,
    isKnown: true,
    isAnyLeft: true,
    again: true,
    variable: true,
    launch: { permanent: false },
    left: false,
    leftAtLast: false,
    user: null,
  });
});

Deno.test("where no descriptor can be had for a look, nobody is taken for gone", async () => {
  assert.deepEqual(await tell("unready look"), {
    found: false,
    isKnown: false,
    isAnyLeft: true,
    again: true,
    variable: null,
    launch: { permanent: false },
    left: null,
    leftAtLast: false,
    user: null,
  });
});

Deno.test("a folder that cannot be opened for want of descriptors is not taken for an empty one", async () => {
  const folder = await Deno.makeTempDir({ prefix: "sm-descriptors-" });
  try {
    await Deno.writeTextFile(`${folder}/file`, "1");
    assert.deepEqual(await tell("scan", folder), {
      count: 1,
      warnings: [],
      failure: "StateManagerError: open : EMFILE",
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("connections that ask nothing are ended also where they have used up all descriptors", async () => {
  const child = start("idle");
  const lines = readLines(child.stdout, { limitBytes: 1024 });
  try {
    const port = Number((await lines.next()).value);
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let isLate = false;
    const late = setTimeout(() => {
      isLate = true;
      connection.close();
    }, 60_000);
    let text = "";
    const buffer = new Uint8Array(1024);
    while (true) {
      const size = await connection.read(buffer).catch(() => null);
      if (size === null) break;
      text += new TextDecoder().decode(buffer.subarray(0, size));
    }
    clearTimeout(late);
    assert.ok(!isLate, `still open after: ${text}`);
    assert.match(text, /taken/);
  } finally {
    sendSignal(child.pid, "SIGKILL");
    await child.status;
    await lines.return(undefined);
  }
});

Deno.test("listeners that were lost for want of descriptors listen again", async () => {
  const folder = await Deno.makeTempDir({ prefix: "sm-descriptors-" });
  const path = `${folder}/control.sock`;
  const child = start("listen", path);
  const lines = readLines(child.stdout, { limitBytes: 1024 });
  try {
    const port = Number((await lines.next()).value);
    const answers = async () => {
      const signal = AbortSignal.timeout(10_000);
      const ways = [httpToUrl(`http://127.0.0.1:${port}`), httpOverSocket(path)];
      const texts = await Promise.allSettled(
        ways.map(async (http) => await (await http.fetch("/", { signal })).text()),
      );
      for (const http of ways) http.close();
      return texts.map((text) => text.status === "fulfilled" ? text.value : null).join();
    };
    let isLost = false;
    const lost = lines.next().then(({ value }) => {
      isLost = value === '"lost"';
    });
    await waitFor("both to be lost", async () => {
      await answers();
      return isLost;
    });
    await lost;
    await waitFor("both to answer again", async () => await answers() === "tcp,unix");
  } finally {
    sendSignal(child.pid, "SIGKILL"); // one that ended by itself is no error
    await child.status;
    await lines.return(undefined);
    await Deno.remove(folder, { recursive: true });
  }
});
