import assert from "node:assert/strict";
import { inodesIn } from "../../src/platform/mapped_files.ts";

Deno.test("of a process's maps only files count that it shares and may write", () => {
  const maps = `55d0-55d1 r--p 00000000 fd:00 11                         /usr/bin/prog
7f00-7f01 rw-p 00000000 fd:00 12                         /usr/lib/private
7f02-7f03 rw-s 00000000 fd:00 13                         /data/with a name
7f04-7f05 r--s 00000000 fd:00 14                         /data/only-read
7f06-7f07 -w-s 00001000 00:2b 15                         /data/gone (deleted)
7f08-7f09 rw-s 00000000 00:01 16                         /memfd:x (deleted)
7f0a-7f0b rw-s 00000000 00:01 17                         /dev/zero (deleted)
7f0c-7f0d rw-p 00000000 00:00 0                          [heap]
7f0e-7f0f rw-s 00000000 00:01 18                         /SYSV00000000 (deleted)
7f10-7f11 rwxs 00000000 fd:00 9007199254740993           /data/large
`;
  assert.deepEqual(inodesIn(maps), [13n, 15n, 9007199254740993n]);
});
