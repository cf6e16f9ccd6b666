/** What a newer version wrote is refused with a clear error wherever it is met, and nothing is written then. */

import assert from "node:assert/strict";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { readHead, readRepository } from "../../src/checkpoint/mod.ts";
import { sha256Hex } from "../../src/checkpoint/ids.ts";
import { decodeIndex } from "../../src/checkpoint/index_format.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { readPackEntries } from "../../src/checkpoint/pack.ts";
import { stageCheckpoint } from "../../src/checkpoint/restore.ts";
import { isError } from "../../src/platform/errors.ts";
import { keptRepository, storeOf, verifyStore } from "../support/kept_repository.ts";
import { takeOverHead } from "../support/take_over_head.ts";

/** True for the one error, which names the object and what this program knows. */
function refused(object: string) {
  return (error: unknown) => {
    assert.ok(isError(error, "format-too-new"), `${error}`);
    assert.equal(error.meaning.exit, 78);
    assert.ok(error.message.includes(object), error.message);
    assert.match(`${error.message} ${error.hint}`, /known up to .*nothing was changed/);
    return true;
  };
}

function changed(
  body: Uint8Array,
  change: (value: Record<string, unknown>) => void,
): Uint8Array<ArrayBuffer> {
  const value = JSON.parse(new TextDecoder().decode(body));
  change(value);
  return new TextEncoder().encode(JSON.stringify(value));
}

Deno.test("a newer repo.json, head or root stops reading, taking over and verifying, with nothing written", async () => {
  await using repository = await keptRepository(1);
  const objects = await repository.objects();
  const [record] = repository.records;
  assert.ok(record !== undefined);
  const { indexes } = repository.head.head;
  const repo = await readRepository(repository.store);
  const environment = { ...repository.runs.environment(), cacheFolder: null };
  for (const key of ["repo.json", "head.json", record.root]) {
    for (const field of key === "repo.json" ? ["format", "min_reader", "min_writer"] : ["format"]) {
      const newer = new Map(objects);
      const body = changed(
        objects.get(key) ?? new Uint8Array(),
        (value) => value[field] = field === "format" ? 2 : 3,
      );
      newer.set(key, body);
      const known = { ...record, root_sha256: key === record.root ? sha256Hex(body) : record.root_sha256 };
      if (key === record.root) {
        const head = changed(
          objects.get("head.json") ?? new Uint8Array(),
          (value) => value["checkpoints"] = [known],
        );
        newer.set("head.json", head);
      }
      const store = await storeOf(newer);
      const writes: string[] = [];
      const watched = {
        ...store,
        put: (key: string) => Promise.reject(new Error(`${writes.push(key)} writes`)),
      };
      const at = refused(`${key}: ${field}`);
      await assert.rejects(verifyStore(watched, repository), at);
      if (key === "repo.json") await assert.rejects(readRepository(watched), at);
      if (key === "head.json") {
        await assert.rejects(readHead(watched, { cipher: plainCipher }), at);
        await assert.rejects(takeOverHead(watched, { repo, token: 9, assertHeld: () => {} }), at);
      }
      if (key === record.root) {
        const roots = [{ name: "data", stage: `${repository.runs.folder}/newer` }];
        await assert.rejects(
          stageCheckpoint({ record: known, indexes, roots }, { ...environment, store: watched }),
          at,
        );
      }
      assert.deepEqual(writes, []);
    }
  }
});

Deno.test("a newer index stops a restore and a verification; a newer pack is refused by its reader", async () => {
  await using repository = await keptRepository(1);
  const objects = await repository.objects();
  const [record] = repository.records;
  const [ref] = repository.head.head.indexes;
  assert.ok(record !== undefined && ref !== undefined);
  const body = (objects.get(ref.key) ?? new Uint8Array()).slice();
  body[4] = "2".charCodeAt(0);
  const codec = await loadCodec();
  const at = refused(`${ref.key}: its format is SMIX2`);
  assert.throws(() => decodeIndex(codec, body, ref.key, () => {}), at);
  const indexes = [{ key: ref.key, sha256: sha256Hex(body) }];
  const head = changed(objects.get("head.json") ?? new Uint8Array(), (value) => value["indexes"] = indexes);
  const store = await storeOf(new Map([...objects, [ref.key, body], ["head.json", head]]));
  await assert.rejects(verifyStore(store, repository), at);
  const environment = { ...repository.runs.environment(), cacheFolder: null, store };
  const roots = [{ name: "data", stage: `${repository.runs.folder}/newer` }];
  await assert.rejects(stageCheckpoint({ record, indexes, roots }, environment), at);
  const [pack] = [...objects.keys()].filter((key) => key.startsWith("checkpoints/packs/"));
  assert.ok(pack !== undefined);
  const bytes = (objects.get(pack) ?? new Uint8Array()).slice();
  bytes[4] = "2".charCodeAt(0);
  assert.throws(() => readPackEntries(bytes, pack), refused(`${pack}: its format is SMPK2`));
  // An index of this format does not name packs of a newer one: there it is damage.
  const result = await verifyStore(await storeOf(new Map([...objects, [pack, bytes]])), repository);
  assert.deepEqual(result.findings.map(({ object, detail }) => [object, /SMPK2/.test(detail)]), [[
    pack,
    true,
  ]]);
});
