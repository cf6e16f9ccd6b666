/**
 * Files that a program has mapped and writes without a system call: the kernel moves their times at the first write to a
 * page, and for the next ones to the same page only after it has written it to the disk.
 */

import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { isRoot } from "../../src/platform/libc_files.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { CheckpointRuns } from "../support/checkpoint_runs.ts";
import { findTool } from "../support/find_tool.ts";

const python = findTool("python3");

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

/** For each line of its input one byte is written through the mapping, then it answers. "u": lets go of the mapping. */
const PROGRAM = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 8192)
os.close(fd)
for line in sys.stdin:
    if line.strip() == "u": m.close()
    else: m[0] = int(line)
    print("done", flush=True)
`;

class MappingProgram implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer;
  readonly #reader;

  constructor(path: string) {
    this.#child = new Deno.Command(python ?? "python3", {
      args: ["-c", PROGRAM, path],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.getReader();
  }

  async tell(line: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(line + "\n"));
    const { done } = await this.#reader.read();
    assert.equal(done, false, "the program answers");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await this.#reader.cancel();
    await this.#child.status;
  }
}

Deno.test({
  name: "a write through a mapping that moves no time is in the next checkpoint [needs python3]",
  ignore: python === null,
  async fn() {
    await using runs = new CheckpointRuns(memoryStore());
    const path = `${runs.files}/mapped`;
    Deno.writeFileSync(path, new Uint8Array(8192));
    Deno.writeTextFileSync(`${runs.files}/other`, "is not read again");
    await using program = new MappingProgram(path);
    // Whoever has the disk written between the two (a sync of another program) lets the times move: once more, then.
    let hasMoved = true;
    for (let round = 0; hasMoved && round < 20; round++) {
      await program.tell("1");
      runs.later(); // all times lie clearly before the scan
      await runs.create();
      const before = Deno.statSync(path);
      await program.tell("2");
      const after = Deno.statSync(path);
      hasMoved = !isDeepStrictEqual([after.mtime, after.ctime], [before.mtime, before.ctime]);
    }
    assert.equal(hasMoved, false, "the kernel has moved no time");
    const second = await runs.create();
    assert.ok(second.record !== null, "it is no unchanged tree");
    assert.equal(second.totals.bytesRead, 8192, "nothing else was read");
    assert.equal(Deno.readFileSync(`${(await runs.stage()).path}/mapped`)[0], 2);
    // Also the last one before it lets go; after that, times tell.
    await program.tell("3");
    await program.tell("u");
    await runs.create();
    assert.equal(Deno.readFileSync(`${(await runs.stage()).path}/mapped`)[0], 3);
    assert.equal((await runs.create()).record, null, "now nothing can change unseen");
  },
});
