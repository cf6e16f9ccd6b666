/** Who a process becomes, and what its files of variables say: the rules, without a process. */

import assert from "node:assert/strict";
import {
  parseAccounts,
  parseGroups,
  readAccountFiles,
  resolveIdentity,
} from "../../src/platform/accounts.ts";
import { parseEnvFile } from "../../src/supervisor/env_file.ts";

const FILES = {
  accounts: parseAccounts(
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n+::::::\n# note:x:5:5::/:\nbad:x:-1:7::/:\n",
  ),
  groups: parseGroups("root:x:0:\napp:x:1001:\ndocker:x:999:other,app\nvideo:x:44:app\nlone:x:77:\n"),
};

const who = (user: string | null, group: string | null = null) => resolveIdentity({ user, group }, FILES, 0);

Deno.test("resolveIdentity gives a user its own group and every group that lists it", () => {
  assert.deepEqual(who("app"), {
    uid: 1000,
    gid: 1001,
    groups: [1001, 999, 44],
    account: { name: "app", uid: 1000, gid: 1001, home: "/home/app" },
  });
  assert.deepEqual(who("1000"), who("app"));
  const other = who("app", "lone");
  assert.ok(typeof other !== "string");
  assert.deepEqual([other.gid, other.groups], [77, [77, 999, 44]]);
});

Deno.test("resolveIdentity never gives group 0 to a user that does not have it", () => {
  assert.match(String(who("4242")), /its group must be given/);
  assert.deepEqual(who("4242", "4243"), { uid: 4242, gid: 4243, groups: [4243], account: null });
  assert.match(String(who("nobody-here")), /not in \/etc\/passwd/);
  assert.match(String(who("app", "nogroup-here")), /not in \/etc\/group/);
  assert.match(String(who("bad")), /not in \/etc\/passwd/);
  assert.match(String(who("4294967295", "5")), /not in \/etc\/passwd/);
  const keeps = who(null, "lone");
  assert.ok(typeof keeps !== "string");
  assert.deepEqual([keeps.uid, keeps.gid, keeps.groups], [0, 77, [77]]);
});

Deno.test("parseEnvFile reads comments, quotes, escapes and values of several lines", () => {
  const text = `\uFEFF# comment\r\nA=1\r\n
  export B = two words   # a note
C='single # $HOME \\n'
D="double \\"q\\" \\$X \\\\ a\\tb" # note
E=
F=#nothing
G=a#b
PEM="-----BEGIN
line
-----END"
A=2
H=x=y
`;
  assert.deepEqual(parseEnvFile(text), {
    A: "2",
    B: "two words",
    C: "single # $HOME \\n",
    D: 'double "q" $X \\ a\tb',
    E: "",
    F: "",
    G: "a#b",
    PEM: "-----BEGIN\nline\n-----END",
    H: "x=y",
  });
  assert.deepEqual(parseEnvFile(""), {});
  assert.deepEqual(parseEnvFile("A=last"), { A: "last" });
});

Deno.test("parseEnvFile names the line of what it cannot read, and none of its content", () => {
  const cases: [string, RegExp][] = [
    ["A=1\nsecret stuff\n", /^line 2 is no NAME=value$/],
    ["A='x\ny'\n\n1B=secret", /^line 4 is no/],
    ['A="secret', /^line 1: a quote is not closed$/],
    ["A='x' secret", /^line 1: something follows/],
    ["A=a\0secret", /^line 1: the value holds a NUL$/],
  ];
  for (const [text, wanted] of cases) {
    const got = parseEnvFile(text);
    assert.ok(typeof got === "string", text);
    assert.match(got, wanted);
    assert.ok(!got.includes("secret"));
  }
});

Deno.test("a file of users that is not there has none; one that cannot be read just now says nothing of who is in it", () => {
  const failing = (error: Error) => () => {
    throw error;
  };
  assert.deepEqual(readAccountFiles(failing(new Deno.errors.NotFound())), { accounts: [], groups: [] });
  assert.throws(
    () => readAccountFiles(failing(new Error("Too many open files (os error 24)"))),
    /os error 24/,
  );
  assert.ok(readAccountFiles().accounts.some(({ name, uid }) => name === "root" && uid === 0));
});
