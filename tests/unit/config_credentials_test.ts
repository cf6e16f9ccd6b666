/** New storage keys in the configuration file, and whose keys count. */

import assert from "node:assert/strict";
import { credentialsElsewhere, loadConfig, persistCredentials } from "../../src/config/mod.ts";
import { Secret } from "../../src/platform/secret.ts";
import { scratchFolder } from "../support/manager_process.ts";

const keys = (accessKey: string, secretKey: string, sessionToken: string | null = null) => ({
  accessKey: new Secret(accessKey),
  secretKey: new Secret(secretKey),
  sessionToken: sessionToken === null ? null : new Secret(sessionToken),
});

async function load(folder: string, environment: Readonly<Record<string, string>> = {}) {
  return await loadConfig({
    environment,
    flags: { config: `${folder}/config.json` },
    dataDir: folder,
    folder,
  });
}

Deno.test("new storage keys take the place of the old in the file, and nothing else of it changes", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/config.json`;
  const text = `{
  // of the bucket
  "storage": { "bucket": "bucket", "access_key": "old", "secret_key": "old", "session_token": "old" /* why */ },
  "name": "shop", // trailing
}
`;
  await Deno.writeTextFile(path, text, { mode: 0o600 });
  await persistCredentials(path, keys("id", "a$b${c}"), 0);
  const kept = await Deno.readTextFile(path);
  assert.match(kept, /\/\/ of the bucket[\s\S]*\/\/ trailing/);
  assert.doesNotMatch(kept, /old/);
  assert.equal(((await Deno.stat(path)).mode ?? 0) & 0o777, 0o600);
  const { config } = await load(scratch.path);
  assert.ok(config?.storage.kind === "s3");
  const { accessKey, secretKey, sessionToken } = config.storage;
  assert.deepEqual([accessKey.reveal(), secretKey.reveal(), sessionToken], ["id", "a$b${c}", null]);
  const backups = [...Deno.readDirSync(scratch.path)].filter(({ name }) => name.endsWith(".bak"));
  assert.equal(backups.length, 1);
  assert.equal(await Deno.readTextFile(`${scratch.path}/${backups[0]?.name}`), text);
  await persistCredentials(path, keys("id", "c", "token"), 1);
  const again = await load(scratch.path);
  assert.equal(again.currentCredentials()?.sessionToken?.reveal(), "token");
});

Deno.test("a file that is gone or broken is not written over by new storage keys", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/config.json`;
  await assert.rejects(persistCredentials(path, keys("a", "b"), 0), { code: "config-unwritable" });
  await Deno.writeTextFile(path, "{ broken");
  await assert.rejects(persistCredentials(path, keys("a", "b"), 0), { code: "config-unwritable" });
  assert.equal(await Deno.readTextFile(path), "{ broken");
});

Deno.test("keys are kept in the file only where all of those in force are from it", async () => {
  using scratch = scratchFolder();
  const source = async (storage: unknown, environment: Readonly<Record<string, string>> = {}) => {
    await Deno.writeTextFile(`${scratch.path}/config.json`, JSON.stringify({ storage }), { mode: 0o600 });
    const { raw, origins } = await load(scratch.path, environment);
    return credentialsElsewhere(raw, origins);
  };
  const written = { bucket: "bucket", access_key: "x", secret_key: "y" };
  const other = { AWS_ACCESS_KEY_ID: "x", AWS_SECRET_ACCESS_KEY: "y" };
  assert.equal(await source(written), null);
  assert.equal(await source({ bucket: "bucket" }, other), "AWS_ACCESS_KEY_ID");
  assert.equal(
    await source(written, { STATE_MANAGER_STORAGE_SECRET_KEY: "z" }),
    "STATE_MANAGER_STORAGE_SECRET_KEY",
  );
  assert.equal(await source({ ...written, secret_key: "${KEY}" }, { KEY: "z" }), "a variable of the file");
  assert.equal(await source({ ...written, secret_key: "$${KEY}" }), null);
});

Deno.test("replaced keys count until those that were read change", async () => {
  using scratch = scratchFolder();
  const folder = `${scratch.path}/env`;
  await Deno.mkdir(folder);
  const write = async (secret: string) => {
    await Deno.writeTextFile(`${folder}/AWS_ACCESS_KEY_ID`, "id");
    await Deno.writeTextFile(`${folder}/AWS_SECRET_ACCESS_KEY`, secret);
  };
  await write("one");
  await Deno.writeTextFile(
    `${scratch.path}/config.json`,
    JSON.stringify({ storage: { bucket: "bucket", env_dir: folder } }),
    { mode: 0o600 },
  );
  const loaded = await load(scratch.path);
  const secret = () => loaded.currentCredentials()?.secretKey.reveal();
  loaded.replaceCredentials(keys("id", "two"));
  assert.equal(await loaded.refreshCredentials(), false);
  assert.equal(secret(), "two");
  await write("two");
  assert.equal(await loaded.refreshCredentials(), false, "the same as those in use");
  await write("three");
  assert.equal(await loaded.refreshCredentials(), true);
  assert.equal(secret(), "three");
});
