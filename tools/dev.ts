/**
 * `deno task dev`: a manager on a folder store with a small sample program, so that lease, checkpoint and restore can
 * be seen at once. Everything it keeps is below ./.state-manager/dev; remove that folder to begin anew.
 */

const root = new URL("../", import.meta.url).pathname;
const home = `${root}.state-manager/dev`;
const address = Deno.env.get("STATE_MANAGER_SERVER_LISTEN") ?? "127.0.0.1:8080";
const files = `${home}/files`;
await Deno.mkdir(files, { recursive: true });

const hint = `
The sample counts in ${files}/counter.db and writes ${files}/note.txt.
In another terminal:

  curl http://${address}/
  curl -X POST http://${address}/checkpoint
  curl -X POST http://${address}/restore -H 'content-type: application/json' -d '{"checkpoint":"latest"}'

Ctrl-C stops it in order: program, last checkpoint, lease. Start it again and it goes on; remove
${files} first and it restores. A kill -9 works, too.
`;
Deno.stderr.writeSync(new TextEncoder().encode(hint));

// Signals go to the whole foreground group; this process only waits for the manager's end.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.addSignalListener(signal, () => forward(signal));
}
const manager = new Deno.Command(Deno.execPath(), {
  args: [
    ...["run", "-A", "--quiet", "--config", `${root}deno.json`, `${root}main.ts`],
    ...["run", "--directory", `${home}/store`, "--files", `data=${files}`, "--data-dir", `${home}/data`],
    ...["--listen", address, "--checkpoint-interval", "30s"],
    "--",
    ...[Deno.execPath(), "run", "-A", "--quiet", "--no-config", `${root}tools/sample_counter.ts`, files],
  ],
  stdin: "null",
}).spawn();

/** A terminal's Ctrl-C reaches the manager by itself; a signal sent to this process alone does not. */
function forward(signal: Deno.Signal): void {
  if (signal === "SIGINT" && Deno.stdin.isTerminal()) return;
  try {
    manager.kill(signal);
  } catch {
    // It has ended.
  }
}

Deno.exit((await manager.status).code);
