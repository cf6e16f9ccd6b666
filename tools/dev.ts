/**
 * `deno task dev`: the manager from source on a folder store in ./.state-manager, with a small program that counts.
 * Stop it with Ctrl-C and start it again: it goes on. Delete .state-manager/dev/data, start: restored from the store.
 */

const root = new URL("../", import.meta.url).pathname;
const home = `${root}.state-manager`;
const store = `${home}/dev-store`;
const data = `${home}/dev/data`;
const socketFolder = `${home}/dev/manager`;

/** The contract's own port where it is free, so that what stands in the documentation works; else any. */
function freePort(): number {
  for (const port of [8080, 0]) {
    try {
      using listener = Deno.listen({ hostname: "127.0.0.1", port });
      return listener.addr.port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
  throw new Error("find a free port: none on 127.0.0.1");
}

const port = freePort();
const url = `http://127.0.0.1:${port}`;
await Deno.mkdir(data, { recursive: true });

const guide = `
A manager with a sample program (tools/sample_counter.ts), its files in ${data},
its store in ${store}. Try, in another terminal:

  curl ${url}/                        # status; the same in a browser
  curl ${url}/databases               # its database, replicated as it is written
  curl -X POST ${url}/checkpoint      # a checkpoint, now
  curl -X POST ${url}/restore -H 'content-type: application/json' -d '{"checkpoint": "latest"}'

Ctrl-C stops it: the last state goes into the store first.
`;
await Deno.stderr.write(new TextEncoder().encode(`${guide}\n`));

const self = [Deno.execPath(), "run", "--allow-all", "--quiet", "--config", `${root}deno.json`];
const manager = new Deno.Command(self[0] ?? "deno", {
  args: [
    ...self.slice(1),
    `${root}main.ts`,
    "run",
    ...["--directory", store, "--files", `data=${data}`, "--data-dir", socketFolder],
    ...["--database", `counter=${data}/counter.db`],
    ...["--listen", `127.0.0.1:${port}`, "--checkpoint-interval", "1m", "--lease-ttl", "10s"],
    "--",
    ...self,
    `${root}tools/sample_counter.ts`,
    data,
  ],
  cwd: root,
  stdin: "null",
}).spawn();
// A terminal sends Ctrl-C to the manager too; a signal to us alone is passed on. Either way the manager decides the end.
Deno.addSignalListener("SIGINT", () => {});
Deno.addSignalListener("SIGTERM", () => manager.kill("SIGTERM"));
const { code } = await manager.status;
Deno.exit(code);
