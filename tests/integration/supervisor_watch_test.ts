/** Real processes that are restarted when real files change. */

import assert from "node:assert/strict";
import { shellSpec } from "../support/process_specs.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { Supervised, until } from "../support/supervised.ts";

const watching = (paths: readonly string[]) => ({ paths, exclude: ["*.tmp"], ignore: [] });

/** Writes until it shows: the kernel tells nothing of what happened before the watch began. */
async function writeUntil(path: string, shows: () => boolean, what: string): Promise<void> {
  let count = 0;
  let nextMs = 0;
  await until(() => {
    if (performance.now() > nextMs) {
      Deno.writeTextFileSync(path, `${count++}`);
      nextMs = performance.now() + 1_000;
    }
    return shows();
  }, what);
}

/** Nothing was started for several times as long as changes are given to calm down. */
async function calm(app: Supervised): Promise<void> {
  let count = -1;
  let sinceMs = 0;
  await until(() => {
    const now = app.names("started").length;
    if (now !== count) sinceMs = performance.now();
    count = now;
    return performance.now() - sinceMs > 1_500;
  }, "no more restarts");
}

Deno.test("Watched process is restarted after a change below its folder, and not for what is excluded", async () => {
  using scratch = scratchFolder();
  Deno.mkdirSync(`${scratch.path}/src/deep`, { recursive: true });
  const watch = watching([`${scratch.path}/src`]);
  await using app = new Supervised(shellSpec("web", "echo up; exec sleep 1000", { watch, essential: false }));
  app.start();
  await app.untilLine("web", "up");
  await writeUntil(`${scratch.path}/src/deep/a`, () => app.names("started").length >= 2, "a restart");
  const exited = app.events.find((event) => event.type === "exited");
  assert.ok(exited?.type === "exited" && exited.requested && exited.restartFor === "watch");
  await calm(app);
  const count = app.names("started").length;
  Deno.writeTextFileSync(`${scratch.path}/src/x.tmp`, "");
  Deno.writeTextFileSync(`${scratch.path}/src/y.tmp`, "");
  await calm(app);
  assert.equal(app.names("started").length, count);
});

Deno.test("Watched process that crashed waits for the next change of its file, which may be replaced", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/script`;
  Deno.writeTextFileSync(path, "exit 1");
  const watch = watching([path]);
  await using app = new Supervised(shellSpec("web", `. ${path}`, { watch, essential: false }));
  app.start();
  await app.untilState("web", "failed");
  assert.deepEqual(app.names("started"), ["web"]);
  let replaced = 0;
  let nextMs = 0;
  await until(() => {
    if (performance.now() > nextMs) {
      Deno.writeTextFileSync(`${path}.new`, `# ${replaced++}\necho fixed; exec sleep 1000`);
      Deno.renameSync(`${path}.new`, path);
      nextMs = performance.now() + 1_000;
    }
    return app.lines("web").includes("fixed");
  }, "a start with the new file");
});

Deno.test("Watched process that a person stopped is left alone, and watched again when it is started", async () => {
  using scratch = scratchFolder();
  const watch = watching([scratch.path]);
  await using app = new Supervised(shellSpec("web", "echo up; exec sleep 1000", { watch, essential: false }));
  app.start();
  await app.untilLine("web", "up");
  await app.supervisor.stopProcess("web");
  const count = app.names("started").length;
  Deno.writeTextFileSync(`${scratch.path}/a`, "");
  await calm(app);
  assert.equal(app.names("started").length, count);
  assert.equal(app.status("web").state, "stopped");
  app.supervisor.startProcess("web");
  await until(() => app.status("web").pid !== null, "its start");
  const again = app.names("started").length;
  await writeUntil(`${scratch.path}/b`, () => app.names("started").length > again, "a restart");
});
