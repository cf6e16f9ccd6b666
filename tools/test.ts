/** The README's test command: runs every test and prints what was left out for want of a tool. */

const root = new URL("../", import.meta.url).pathname;
const run = new Deno.Command(Deno.execPath(), {
  args: ["test", "-A", "--config", "tests/deno.json", ...(Deno.args.length > 0 ? Deno.args : ["tests/"])],
  cwd: root,
  stdin: "null",
}).spawn();
Deno.exit((await run.status).code);
