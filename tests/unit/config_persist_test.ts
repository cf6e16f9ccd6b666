/** Keeping a configuration that came over the API, on a real folder; and where files and folders are looked for. */

import assert from "node:assert/strict";
import {
  defaultDataDir,
  findConfigFile,
  findDataDir,
  loadConfig,
  persistConfig,
  readEnvDir,
  validateBody,
} from "../../src/config/mod.ts";
import { isError } from "../../src/platform/errors.ts";
import { fileMode, listFiles } from "../../src/platform/environment.ts";
import { readTextIfPresent } from "../../src/platform/files.ts";
import { optionsFor } from "../support/config_files.ts";

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "config-test-" });
  try {
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function names(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
}

const DAY_MS = 86_400_000;

Deno.test("persistConfig keeps the file for its owner only, and it loads again as it was", async () => {
  await inFolder(async (folder) => {
    const body = {
      storage: { directory: "/store/${X}" },
      processes: { a: { command: ["a", "$$"] } },
    };
    const checked = await validateBody(body, optionsFor({}));
    const path = `${folder}/new/config.json`;
    await persistConfig(path, checked.raw, 0);
    assert.equal(((await fileMode(path)) ?? 0) & 0o777, 0o600);
    assert.deepEqual(names(`${folder}/new`), ["config.json"]);
    const again = await loadConfig({
      environment: {},
      flags: {},
      dataDir: `${folder}/new`,
      folder,
    });
    assert.deepEqual(again.config, checked.config);
    assert.deepEqual(again.warnings, []);
    await Deno.chmod(path, 0o644);
    const open = await loadConfig({
      environment: {},
      flags: {},
      dataDir: `${folder}/new`,
      folder,
    });
    assert.match(open.warnings.join(), /chmod 600/);
  });
});

Deno.test("persistConfig keeps the ten newest previous files and touches no others", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/config.json`;
    await Deno.writeTextFile(`${path}.mine.bak`, "mine");
    for (let day = 0; day <= 12; day++) {
      await persistConfig(path, { name: `n${day}` }, day * DAY_MS);
    }
    const backups = names(folder).filter((name) => /\.\d{8}T\d{9}Z\.bak$/.test(name));
    assert.equal(backups.length, 10);
    assert.equal(backups[0], "config.json.19700104T000000000Z.bak");
    assert.deepEqual(
      JSON.parse(await Deno.readTextFile(`${folder}/${backups[9]}`)),
      { name: "n11" },
    );
    assert.equal(
      (Deno.statSync(`${folder}/${backups[9]}`).mode ?? 0) & 0o777,
      0o600,
    );
    assert.deepEqual(JSON.parse(await Deno.readTextFile(path)), {
      name: "n12",
    });
    assert.equal(await Deno.readTextFile(`${path}.mine.bak`), "mine");
    assert.ok(names(folder).every((name) => !name.endsWith(".tmp")));
  });
});

Deno.test("persistConfig never overwrites a file that does not parse", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/config.json`;
    await Deno.writeTextFile(path, '{ "storage": ');
    await assert.rejects(
      persistConfig(path, { name: "n" }, 0),
      (error) => isError(error, "config-unwritable") && error.meaning.exit === 78,
    );
    assert.equal(await Deno.readTextFile(path), '{ "storage": ');
    assert.deepEqual(names(folder), ["config.json"]);
  });
});

Deno.test("persistConfig says so when the folder cannot be made", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    await assert.rejects(
      persistConfig(`${folder}/file/config.json`, {}, 0),
      (error) =>
        isError(error, "config-unwritable") &&
        (error.hint ?? "").includes("--config"),
    );
  });
});

Deno.test("a file that cannot be read is told as such", async () => {
  await inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/config.json`); // unreadable for root too
    await assert.rejects(
      loadConfig({ environment: {}, flags: {}, dataDir: folder, folder }),
      (error) => isError(error, "config-invalid") && /cannot be read/.test(error.details[0]?.detail ?? ""),
    );
  });
});

Deno.test("readEnvDir reads a mounted secret: links, one line break, dots and folders left out", async () => {
  await inFolder(async (folder) => {
    const mount = `${folder}/mount`;
    await Deno.mkdir(`${mount}/..2026`, { recursive: true });
    await Deno.writeTextFile(`${mount}/..2026/AWS_ACCESS_KEY_ID`, "id\n");
    await Deno.symlink("..2026", `${mount}/..data`);
    await Deno.symlink(
      "..data/AWS_ACCESS_KEY_ID",
      `${mount}/AWS_ACCESS_KEY_ID`,
    );
    await Deno.symlink("nowhere", `${mount}/DANGLING`);
    await Deno.mkdir(`${mount}/FOLDER`);
    await Deno.writeTextFile(`${mount}/TWO_LINES`, "a\nb\n\n");
    await Deno.writeTextFile(`${mount}/not-a-name`, "x");
    await Deno.writeTextFile(`${mount}/.HIDDEN`, "x");
    const variables = await readEnvDir(mount, {
      listFiles,
      readText: readTextIfPresent,
    });
    assert.deepEqual(variables, {
      AWS_ACCESS_KEY_ID: "id",
      TWO_LINES: "a\nb\n",
    });
    const missing = await loadConfig({
      environment: { STATE_MANAGER_STORAGE_ENV_DIR: `${folder}/none` },
      flags: {},
      dataDir: folder,
      folder,
    }).catch((error) => error);
    assert.ok(isError(missing, "config-invalid"));
    assert.equal(missing.details[0]?.pointer, "STATE_MANAGER_STORAGE_ENV_DIR");
  });
});

Deno.test("the data folder is the flag's, the variable's, the container's, or beside the work", () => {
  const place = { isRoot: true, inContainer: true, folder: "/work" };
  const variable = { STATE_MANAGER_DATA_DIR: "var" };
  assert.equal(findDataDir({ dataDir: "d/../e" }, variable, place), "/work/e");
  assert.equal(findDataDir({}, variable, place), "/work/var");
  assert.equal(
    findDataDir({}, { STATE_MANAGER_DATA_DIR: "" }, place),
    "/var/lib/state-manager",
  );
  assert.equal(
    defaultDataDir({ ...place, isRoot: false }),
    "/work/.state-manager",
  );
  assert.equal(
    defaultDataDir({ ...place, inContainer: false }),
    "/work/.state-manager",
  );
});

Deno.test("the file is the flag's, the variable's, or the data folder's", () => {
  const variable = { STATE_MANAGER_CONFIG: "/etc/c.json" };
  assert.deepEqual(
    findConfigFile({ config: "c.json" }, variable, "/data", "/work"),
    {
      path: "/work/c.json",
      source: "--config",
    },
  );
  assert.equal(
    findConfigFile({}, variable, "/data", "/work").path,
    "/etc/c.json",
  );
  assert.deepEqual(findConfigFile({}, {}, "/data", "/work"), {
    path: "/data/config.json",
    source: null,
  });
});
