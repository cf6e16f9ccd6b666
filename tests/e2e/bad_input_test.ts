/** Bad input: each gets a clear error with its exit code or problem type, and nothing is overwritten. */

import assert from "node:assert/strict";
import { ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { S3Server } from "../support/s3_server.ts";
import { storeOnService, testOnStores, type TestStore } from "../support/test_stores.ts";

function runArgs(root: string, store: TestStore, ...extra: string[]): string[] {
  Deno.mkdirSync(`${root}/files`, { recursive: true });
  return [
    "run",
    ...store.args,
    ...[
      "--files",
      `app=${root}/files`,
      "--data-dir",
      `${root}/data`,
      "--checkpoint-interval",
      "1h",
      "--no-lease-wait",
    ],
    ...extra,
    "--",
    ...["sh", "-c", `touch ${root}/started; sleep 100000`],
  ];
}

function neverStarted(root: string): void {
  assert.throws(
    () => Deno.statSync(`${root}/started`),
    "the program must not start",
  );
}

/** Every file below `path`, with its bytes in hexadecimal. */
function snapshot(path: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const entry of Deno.readDirSync(path)) {
    const at = `${path}/${entry.name}`;
    if (entry.isDirectory) Object.assign(found, snapshot(at));
    else if (entry.isFile) {
      found[at] = new Uint8Array(Deno.readFileSync(at)).toHex?.() ??
        String(Deno.readFileSync(at));
    }
  }
  return found;
}

Deno.test("a configuration that is not JSON stops the start with 78 and is not overwritten", async () => {
  using scratch = scratchFolder();
  Deno.mkdirSync(`${scratch.path}/data`);
  const file = `${scratch.path}/data/config.json`;
  Deno.writeTextFileSync(file, '{ "storage": { "directory": "/tmp/x" ');
  const result = await runProgram(["--data-dir", `${scratch.path}/data`]);
  assert.equal(result.code, 78, result.stderr);
  assert.match(result.stderr, /config\.json/);
  assert.equal(
    Deno.readTextFileSync(file),
    '{ "storage": { "directory": "/tmp/x" ',
  );
});

Deno.test("every problem of a configuration is told at once, with what was wanted", async () => {
  using scratch = scratchFolder();
  const file = `${scratch.path}/config.json`;
  Deno.writeTextFileSync(
    file,
    JSON.stringify({
      storage: { directory: 7 },
      procesess: {},
      shutdown: { budget: "soon" },
      mounts: { a: { path: "/x" } },
    }),
  );
  const result = await runProgram(["config", "check", "--config", file]);
  assert.equal(result.code, 78, result.stderr + result.stdout);
  for (const part of ["storage", "procesess", "budget", "mounts"]) {
    assert.match(result.stderr + result.stdout, new RegExp(part));
  }
});

Deno.test("a data folder that cannot be written is 78 with the fix named", async () => {
  using scratch = scratchFolder();
  Deno.writeTextFileSync(`${scratch.path}/file`, "");
  const result = await runProgram(["--data-dir", `${scratch.path}/file/data`]);
  assert.equal(result.code, 78, result.stderr);
  assert.match(result.stderr, /--data-dir/);
});

Deno.test("usage errors are 64", async () => {
  for (
    const args of [["--no-such-option"], ["nonsense"], ["run"], [
      "run",
      "--files",
      "a=/x",
      "--files",
      "a=/y",
      "--",
      "true",
    ]]
  ) {
    const result = await runProgram(args);
    assert.equal(result.code, 64, `${args.join(" ")}: ${result.stderr}`);
  }
});

Deno.test("wrong keys, a wrong bucket and an unreachable endpoint each say what is wrong", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({ bucket: "right" });
  const keys = {
    AWS_ACCESS_KEY_ID: server.accessKey,
    AWS_SECRET_ACCESS_KEY: server.secretKey,
  };
  const at = (
    bucket: string,
    endpoint: string,
  ) => ["--bucket", bucket, "--endpoint", endpoint, "--region", "us-east-1"];
  const cases: [string, string[], Record<string, string>, number, RegExp][] = [
    [
      "keys",
      at("right", server.endpoint),
      { ...keys, AWS_SECRET_ACCESS_KEY: "wrong-secret-value" },
      78,
      /credential|secret|key/i,
    ],
    ["bucket", at("wrong", server.endpoint), keys, 78, /bucket/i],
    ["endpoint", at("right", "http://127.0.0.1:1"), keys, 69, /reach|connect/i],
  ];
  for (const [name, args, env, code, text] of cases) {
    const root = `${scratch.path}/${name}`;
    const result = await runProgram(runArgs(root, { args, env, config: {} }), {
      env,
    });
    assert.equal(result.code, code, `${name}: ${result.stderr}`);
    assert.match(result.stderr, text);
    assert.ok(!result.stderr.includes("wrong-secret-value"));
    neverStarted(root);
  }
});

Deno.test("a store that ignores write conditions is refused with 78", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({
    bucket: "bucket",
    ignoreConditions: ["if-none-match", "if-match"],
  });
  const store = storeOnService(server);
  const result = await runProgram(runArgs(scratch.path, store), {
    env: store.env,
  });
  assert.equal(result.code, 78, result.stderr);
  assert.match(result.stderr, /condition/i);
  neverStarted(scratch.path);
});

Deno.test("a prefix that belongs to something else is refused with 78 and left as it is", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/store`;
  Deno.mkdirSync(`${path}/photos`, { recursive: true });
  Deno.writeTextFileSync(`${path}/photos/cat.jpg`, "not ours");
  const before = snapshot(path);
  const result = await runProgram(
    runArgs(scratch.path, { args: ["--directory", path], env: {}, config: {} }),
  );
  assert.equal(result.code, 78, result.stderr);
  assert.match(result.stderr, /prefix/i);
  assert.deepEqual(snapshot(path), before);
  neverStarted(scratch.path);
});

testOnStores(
  "a lease held elsewhere is 75 with --no-lease-wait",
  async (store) => {
    using scratch = scratchFolder();
    await using holder = new ManagerProcess({
      args: runArgs(`${scratch.path}/a`, store),
      env: store.env,
    });
    await holder.state("running");
    const result = await runProgram(runArgs(`${scratch.path}/b`, store), {
      env: store.env,
    });
    assert.equal(result.code, 75, result.stderr);
    neverStarted(`${scratch.path}/b`);
    assert.equal((await holder.json("/")).state, "running");
  },
);

Deno.test("two managers never share one data folder", async () => {
  using scratch = scratchFolder();
  const store: TestStore = {
    args: ["--directory", `${scratch.path}/store`],
    env: {},
    config: {},
  };
  await using first = new ManagerProcess({
    args: runArgs(scratch.path, store),
    env: {},
  });
  await first.state("running");
  const result = await runProgram(runArgs(scratch.path, store));
  assert.equal(result.code, 75, result.stderr);
  assert.match(result.stderr, /another manager/);
});

Deno.test("truncated and bit-flipped objects stop the restore with 65, and nothing local is touched", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/store`;
  const store: TestStore = { args: ["--directory", path], env: {}, config: {} };
  {
    await using manager = new ManagerProcess({
      args: runArgs(`${scratch.path}/a`, store),
    });
    await manager.state("running");
    const noise = crypto.getRandomValues(new Uint8Array(60_000));
    for (let i = 0; i < 20; i++) {
      Deno.writeFileSync(
        `${scratch.path}/a/files/f${i}`,
        noise.subarray(i * 100),
      );
    }
    await manager.json("/checkpoint", { method: "POST" });
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 143, manager.tail());
  }
  const objects = Object.keys(snapshot(path)).filter((file) => /head|repo|roots|packs|index/.test(file));
  assert.ok(objects.length >= 5, objects.join("\n"));
  for (const [number, object] of objects.entries()) {
    for (const damage of ["truncated", "flipped"]) {
      // Each on a copy: a start writes its lease and takes the head over.
      const copy = `${scratch.path}/copy`;
      await new Deno.Command("cp", { args: ["-a", path, copy] }).output();
      const damaged = copy + object.slice(path.length);
      const whole = Deno.readFileSync(damaged);
      const middle = whole.length >> 1;
      if (damage === "flipped") whole[middle] = (whole[middle] ?? 0) ^ 0x40;
      Deno.writeFileSync(damaged, damage === "truncated" ? whole.slice(0, middle) : whole);
      const root = `${scratch.path}/b${number}${damage}`;
      const result = await runProgram(runArgs(root, { args: ["--directory", copy], env: {}, config: {} }));
      const where = `${damage} ${object.slice(path.length)}: ${result.code} ${result.stderr}`;
      assert.ok([65, 78].includes(result.code), where);
      assert.deepEqual([...Deno.readDirSync(`${root}/files`)], [], where);
      neverStarted(root);
      await Deno.remove(root, { recursive: true });
      await Deno.remove(copy, { recursive: true });
    }
  }
});

Deno.test("a store that goes away later keeps the programs running, reports it, and recovers", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({ bucket: "bucket" });
  const store = storeOnService(server);
  await using manager = new ManagerProcess({
    args: runArgs(scratch.path, store),
    env: store.env,
  });
  await manager.state("running");
  const fault = server.fail({ status: 503, code: "SlowDown" });
  const refused = await manager.fetch("/checkpoint", { method: "POST" });
  assert.equal(refused.status, 503, await refused.text());
  assert.equal((await manager.json("/")).state, "running");
  fault.end();
  const made = await waitFor("a checkpoint", async () => {
    const response = await manager.fetch("/checkpoint", { method: "POST" });
    const body = await response.json();
    return response.status === 201 ? body : null;
  });
  assert.ok(made.checkpoint.id);
});

Deno.test("a store with no space left fails the checkpoint clearly and the next one works", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({ bucket: "bucket" });
  const store = storeOnService(server);
  await using manager = new ManagerProcess({
    args: runArgs(scratch.path, store),
    env: store.env,
  });
  await manager.state("running");
  Deno.writeTextFileSync(`${scratch.path}/files/x`, "x");
  const fault = server.fail({
    status: 507,
    code: "XMinioStorageFull",
    operation: "put",
    keyPrefix: "checkpoints/",
  });
  const full = await manager.fetch("/checkpoint", { method: "POST" });
  assert.equal(full.status, 503);
  assert.equal((await full.json()).code, "store-full");
  fault.end();
  assert.equal(
    (await manager.json("/checkpoint", { method: "POST" })).checkpoint.n,
    1,
  );
});
