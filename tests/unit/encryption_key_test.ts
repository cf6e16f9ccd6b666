import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import * as v from "valibot";
import {
  type EncryptionKey,
  parseEncryptionKey,
  readEncryptionKey,
} from "../../src/checkpoint/encryption_key.ts";
import {
  type Encryption,
  encryptionSchema,
  type KeyWrap,
  newCipherKey,
  unwrapKey,
  wrapKey,
} from "../../src/checkpoint/key_wrap.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import { scratchFolder } from "../support/manager_process.ts";

const random = systemRandom();
const repoId = "ab".repeat(16);
const raw = new Uint8Array(32).map((_, i) => i * 9);
const utf8 = (text: string) => new TextEncoder().encode(text);

function passphrase(text: string): EncryptionKey {
  return { kind: "passphrase", value: new Secret(text) };
}

function randomKey(): EncryptionKey {
  return { kind: "key", value: new Secret(Buffer.from(random.bytes(32)).toString("base64")) };
}

function encryptionOf(...wraps: KeyWrap[]): Encryption {
  return { alg: "aes-256-gcm", wraps };
}

Deno.test("key file is a key in three spellings, else a passphrase", () => {
  const hex = Buffer.from(raw).toString("hex");
  const base64 = Buffer.from(raw).toString("base64");
  const url = base64.replaceAll("+", "-").replaceAll("/", "_");
  for (const file of [raw, ...[hex, hex.toUpperCase() + "\n", base64, base64 + "\r\n", url].map(utf8)]) {
    const key = parseEncryptionKey(file);
    assert.ok(typeof key !== "string" && key.kind === "key");
    assert.equal(key.value.reveal(), base64);
  }
  // Of 32 characters, too: what can be typed is never taken for random bytes.
  for (const text of ["correct horse battery staple 123", "zwölf Zeichen", hex.slice(1), base64.slice(1)]) {
    for (const end of ["", "\n", "\r\n"]) {
      const key = parseEncryptionKey(utf8(text + end));
      assert.ok(typeof key !== "string" && key.kind === "passphrase", text);
      assert.equal(key.value.reveal(), text);
    }
  }
  const [composed, decomposed] = ["pass\u00e9-pass\u00e9-pass", "passe\u0301-passe\u0301-pass"].map((text) =>
    parseEncryptionKey(utf8(text))
  );
  assert.deepEqual(composed, decomposed);
  assert.ok(typeof composed !== "string" && typeof decomposed !== "string");
  assert.equal(composed?.value.reveal(), decomposed?.value.reveal());
});

Deno.test("key file that holds neither is refused with a reason that shows nothing of it", async () => {
  using folder = scratchFolder();
  const path = `${folder.path}/key`;
  const wrong = [
    utf8(""),
    utf8("short\n"),
    utf8("eleven-char"),
    utf8("a line of text\nand another one\n"),
    new Uint8Array(31).fill(200),
    new Uint8Array(33).fill(200),
    new Uint8Array(5000).fill(65),
  ];
  for (const bytes of wrong) {
    Deno.writeFileSync(path, bytes);
    await assert.rejects(readEncryptionKey(path), (error) => {
      assert.ok(isError(error, "encryption-key-missing") && error.message.includes(path));
      return !/short|eleven|line of text/.test(error.message + error.hint);
    });
  }
  await assert.rejects(
    readEncryptionKey(`${folder.path}/none`),
    (error) => isError(error, "encryption-key-missing") && /no such file/.test(error.message),
  );
  await assert.rejects(readEncryptionKey(folder.path), (error) => isError(error, "encryption-key-missing"));
});

Deno.test("wrapped data key is opened by its own key alone, among several wraps", async () => {
  const data = newCipherKey(repoId, random);
  const keys = [randomKey(), passphrase("correct horse"), randomKey(), passphrase("battery staple")];
  const wraps = await Promise.all(keys.slice(0, 3).map((key) => wrapKey(data, key, random)));
  const enc = encryptionOf(...wraps);
  assert.deepEqual(v.parse(encryptionSchema, JSON.parse(JSON.stringify(enc))), enc);
  for (const key of keys.slice(0, 3)) {
    assert.equal((await unwrapKey(repoId, enc, key))?.dataKey.reveal(), data.dataKey.reveal());
  }
  const strangers = [keys[3], randomKey(), passphrase(keys[0]?.value.reveal() ?? "")];
  for (const key of strangers) assert.equal(key && await unwrapKey(repoId, enc, key), null);
  const [own] = keys;
  assert.equal(own && await unwrapKey("cd".repeat(16), enc, own), null, "a wrap is of its repository");
});

Deno.test("wrap with any changed byte opens nothing", async () => {
  const key = randomKey();
  const wrap = await wrapKey(newCipherKey(repoId, random), key, random);
  for (const field of ["salt", "sealed"] as const) {
    const bytes = Buffer.from(wrap[field], "base64");
    for (let i = 0; i < bytes.length; i++) {
      const copy = Buffer.from(bytes);
      copy[i] = (copy[i] ?? 0) ^ 4;
      const changed = { ...wrap, [field]: copy.toString("base64") };
      assert.equal(await unwrapKey(repoId, encryptionOf(changed), key), null, `${field} ${i}`);
    }
  }
});

Deno.test("encryption record that would cost too much or says nothing is refused", async () => {
  const wrap = await wrapKey(newCipherKey(repoId, random), randomKey(), random);
  const scrypt = (n: number, r: number, p: number) => ({ ...wrap, kdf: { alg: "scrypt", n, r, p } });
  const bad: unknown[] = [
    encryptionOf(),
    encryptionOf(...Array.from({ length: 9 }, () => wrap)),
    { ...encryptionOf(wrap), alg: "aes-256-cbc" },
    { alg: "aes-256-gcm", wraps: [scrypt(2 ** 30, 8, 1)] },
    { alg: "aes-256-gcm", wraps: [scrypt(2 ** 15, 8, 1000)] },
    { alg: "aes-256-gcm", wraps: [scrypt(1000, 8, 1)] },
    { alg: "aes-256-gcm", wraps: [scrypt(0, 8, 1)] },
    { alg: "aes-256-gcm", wraps: [{ ...wrap, kdf: { alg: "none" } }] },
    { alg: "aes-256-gcm", wraps: [{ ...wrap, salt: "" }] },
    { alg: "aes-256-gcm", wraps: [{ ...wrap, sealed: wrap.sealed.slice(4) }] },
  ];
  for (const enc of bad) assert.ok(!v.safeParse(encryptionSchema, enc).success, JSON.stringify(enc));
  assert.ok(v.safeParse(encryptionSchema, { alg: "aes-256-gcm", wraps: [scrypt(2 ** 17, 8, 1)] }).success);
});
