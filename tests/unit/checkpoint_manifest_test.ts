import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { chunkId } from "../../src/checkpoint/ids.ts";
import { comparePaths, ManifestReader, ManifestWriter } from "../../src/checkpoint/manifest.ts";
import type { ContentPart, FilesSummary, ManifestEntry, TreeEntry } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";
import { damagedCopies, refuses } from "../support/damage.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

function entry(
  path: Uint8Array<ArrayBuffer>,
  more: Partial<TreeEntry> = {},
): TreeEntry {
  return {
    path,
    type: "file",
    mode: 0o644,
    uid: 1000,
    gid: 1000,
    mtimeNs: 1_700_000_000_123_456_789n,
    size: 0,
    ...more,
  };
}

const root: ManifestEntry = {
  entry: entry(new Uint8Array(), { type: "directory", mode: 0o755 }),
  parts: [],
};

function written(
  entries: readonly ManifestEntry[],
): { pieces: Uint8Array[]; summary: FilesSummary } {
  const pieces: Uint8Array[] = [];
  const writer = new ManifestWriter((piece) => void pieces.push(piece), plainCipher);
  for (const item of entries) writer.add(item);
  return { pieces, summary: writer.finish() };
}

function read(
  pieces: readonly Uint8Array[],
  summary: FilesSummary,
): readonly ManifestEntry[] {
  const reader = new ManifestReader("manifest", summary, plainCipher);
  for (const piece of pieces) reader.add(piece);
  return reader.finish();
}

function chunks(count: number, length = 100): ContentPart[] {
  return Array.from(
    { length: count },
    (_, i) => ({ kind: "chunk", id: chunkId(bytes(`chunk ${i}`)), length }),
  );
}

const names = fc.uint8Array({ minLength: 1, maxLength: 12 }).filter((name) =>
  !name.includes(0) && !name.includes(0x2f) &&
  !(name.length < 3 && name.every((byte) => byte === 0x2e))
);

/** A flat tree of everything: raw names, all types, parts and holes, hard links. */
const trees = fc.uniqueArray(names, {
  maxLength: 30,
  selector: (name) => Buffer.from(name).toString("hex"),
}).chain((
  paths,
) =>
  fc.tuple(...paths.map((name) =>
    fc.record({
      kind: fc.constantFrom(
        "file",
        "directory",
        "symlink",
        "fifo",
        "holes",
        "sqlite",
        "linked",
      ),
      mode: fc.nat({ max: 0o7777 }),
      uid: fc.nat({ max: 0xffffffff }),
      mtimeNs: fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n }),
      parts: fc.nat({ max: 5 }),
    }).map((facts) => ({ name: new Uint8Array(name), facts }))
  ))
).map((items) => {
  let first = true;
  return [
    root,
    ...items.toSorted((a, b) => comparePaths(a.name, b.name)).map(
      ({ name, facts }): ManifestEntry => {
        const { kind, parts: count, ...attributes } = facts;
        if (kind === "directory" || kind === "fifo") {
          return {
            entry: entry(name, { ...attributes, type: kind }),
            parts: [],
          };
        }
        if (kind === "symlink") {
          return {
            entry: entry(name, {
              ...attributes,
              type: "symlink",
              target: Uint8Array.of(255, 47),
            }),
            parts: [],
          };
        }
        if (kind === "linked") {
          const parts = first ? chunks(2) : [];
          first = false;
          return {
            entry: entry(name, {
              mode: 0o600,
              uid: 0,
              mtimeNs: 5n,
              size: 200,
              linkGroup: 1,
            }),
            parts,
          };
        }
        const parts: ContentPart[] = chunks(count);
        if (kind === "holes") parts.push({ kind: "hole", length: 4096 });
        const size = parts.reduce((sum, part) => sum + part.length, 0);
        return {
          entry: entry(name, {
            ...attributes,
            size,
            ...(kind === "sqlite" ? { sqlite: true } : {}),
          }),
          parts,
        };
      },
    ),
  ];
});

Deno.test("manifest gives back every entry of a tree", () => {
  fc.assert(fc.property(trees, (entries) => {
    const { pieces, summary } = written(entries);
    assert.deepEqual(read(pieces, summary), entries);
    assert.equal(summary.entries, entries.length);
  }));
});

Deno.test("manifest gives back extended attributes in order, whatever is in their names and values", () => {
  const xattr = fc.record({
    name: fc.uint8Array({ minLength: 1, maxLength: 40 }).map((rest) =>
      "user." + Buffer.from(rest.filter((byte) => byte !== 0)).toString("latin1") + "."
    ),
    value: fc.uint8Array({ maxLength: 300 }).map((value) => new Uint8Array(value)),
  });
  const lists = fc.uniqueArray(xattr, { minLength: 1, maxLength: 20, selector: ({ name }) => name });
  fc.assert(fc.property(lists, (list) => {
    const xattrs = list.map(({ name, value }) => ({ name, value })).sort((a, b) => a.name < b.name ? -1 : 1);
    const entries = [root, { entry: entry(bytes("f"), { xattrs }), parts: [] }];
    const { pieces, summary } = written(entries);
    assert.deepEqual(read(pieces, summary), entries);
  }));
});

Deno.test("manifest reader passes over attributes of namespaces that it does not know", () => {
  const x = { "security.selinux": "AA==", "user.a": "AQ==", "other.b": "Ag==" };
  const [, file] = forgedEntries([rootLine, { p: "a", t: "f", s: 0, x, ...attributes }]);
  assert.deepEqual(file?.entry.xattrs, [{ name: "user.a", value: Uint8Array.of(1) }]);
});

Deno.test("manifest of a file with more parts than a line holds goes on in further lines", () => {
  const parts = chunks(2000, 1000);
  const entries = [root, {
    entry: entry(bytes("big"), { size: 2_000_000 }),
    parts,
  }];
  const { pieces, summary } = written(entries);
  assert.ok(
    pieces.length > 1 || pieces.every((piece) => piece.length < 512 * 1024),
  );
  assert.deepEqual(read(pieces, summary), entries);
});

Deno.test("manifest shares almost all its pieces with that of a tree with one changed file", () => {
  const tree = (mtimeNs: bigint) => [
    root,
    ...Array.from({ length: 20_000 }, (_, i) => ({
      entry: entry(bytes(`file-${String(i).padStart(6, "0")}.txt`), {
        size: 100,
        ...(i === 9000 ? { mtimeNs } : {}),
      }),
      parts: chunks(1),
    })),
  ];
  const before = new Set(written(tree(1n)).pieces.map(chunkId));
  const after = written(tree(2n)).pieces;
  assert.ok(before.size > 20 && before.size < 120, `${before.size} pieces`);
  assert.equal(after.filter((piece) => !before.has(chunkId(piece))).length, 1);
});

Deno.test("manifest reader refuses damage or reads what was written", () => {
  const entries = [
    root,
    { entry: entry(bytes("a"), { type: "directory" as const }), parts: [] },
    { entry: entry(bytes("a/b"), { size: 300 }), parts: chunks(3) },
    {
      entry: entry(bytes("c"), {
        type: "symlink" as const,
        target: bytes("a/b"),
      }),
      parts: [],
    },
  ];
  const { pieces, summary } = written(entries);
  const whole = new Uint8Array(Buffer.concat(pieces));
  fc.assert(fc.property(damagedCopies(whole), (copy) => {
    refuses(() => assert.deepEqual(read([copy], summary), entries));
  }));
});

function forgedEntries(lines: readonly Record<string, unknown>[]): readonly ManifestEntry[] {
  const text = bytes(lines.map((line) => JSON.stringify(line) + "\n").join(""));
  const manifest_sha256 = createHash("sha256").update(text).digest("hex");
  return read([text], { entries: lines.length, bytes: 0, manifest_sha256 });
}

/** A manifest whose lines are these objects, with a summary that fits it. */
function forged(lines: readonly Record<string, unknown>[]): () => unknown {
  const text = lines.map((line) => JSON.stringify(line) + "\n").join("");
  return () => {
    const reader = new ManifestReader("manifest", {
      entries: 1000,
      bytes: 0,
      manifest_sha256: "0".repeat(64),
    }, plainCipher);
    reader.add(bytes(text));
    return reader.finish();
  };
}

const attributes = { m: 420, u: 0, g: 0, ns: "0" };
const rootLine = { p: "", t: "d", ...attributes };

for (
  const [what, lines] of Object.entries({
    "a path that leads out": [rootLine, {
      p: "../x",
      t: "f",
      s: 0,
      ...attributes,
    }],
    "an absolute path": [rootLine, {
      p: "/etc/x",
      t: "f",
      s: 0,
      ...attributes,
    }],
    "a path below a symlink": [
      rootLine,
      { p: "a", t: "l", to: "/etc", ...attributes },
      { p: "a/x", t: "f", s: 0, ...attributes },
    ],
    "a path with NUL": [rootLine, { p: "a\0b", t: "f", s: 0, ...attributes }],
    "entries out of order": [
      rootLine,
      { p: "b", t: "f", s: 0, ...attributes },
      { p: "a", t: "f", s: 0, ...attributes },
    ],
    "a path twice": [rootLine, { p: "a", t: "f", s: 0, ...attributes }, {
      p: "a",
      t: "f",
      s: 0,
      ...attributes,
    }],
    "an attribute twice": [rootLine, {
      p: "a",
      t: "f",
      s: 0,
      x: { "user.a": "" },
      x64: { [Buffer.from("user.a").toString("base64")]: "" },
      ...attributes,
    }],
    "an attribute whose name has NUL": [rootLine, {
      p: "a",
      t: "f",
      s: 0,
      x: { "user.a\0b": "" },
      ...attributes,
    }],
    "attributes that are larger than any": [rootLine, {
      p: "a",
      t: "f",
      s: 0,
      x: { "user.a": "A".repeat(140_000) },
      ...attributes,
    }],
    "attributes that are no object": [rootLine, { p: "a", t: "f", s: 0, x: ["user.a"], ...attributes }],
    "no root": [{ p: "a", t: "f", s: 0, ...attributes }],
    "content that is shorter than the file": [rootLine, {
      p: "a",
      t: "f",
      s: 10,
      ...attributes,
    }],
    "a hard link to what is not there": [rootLine, {
      p: "a",
      t: "f",
      s: 0,
      h: "zzz",
      ...attributes,
    }],
    "a mode that is no mode": [rootLine, {
      p: "a",
      t: "f",
      s: 0,
      ...attributes,
      m: 0o10000,
    }],
  })
) {
  Deno.test(`manifest reader refuses ${what}`, () => {
    assert.throws(
      forged(lines),
      (error) =>
        isError(error, "data-damaged") &&
        !/SHA-256|wanted 1000/.test(error.message),
    );
  });
}
