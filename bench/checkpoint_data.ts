/** Trees for the checkpoint benchmark: byte for byte the same in each run. */

import { DatabaseSync } from "node:sqlite";

/** mulberry32: small, seeded, good enough for content that must not compress. */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

export interface DataSet {
  readonly name: string;
  /** Many files. */
  readonly isWide: boolean;
  make(folder: string): Promise<void>;
  /** Changes about 1 % of it in place. */
  change(folder: string): Promise<void>;
}

const MIB = 1024 * 1024;
const WORDS =
  "lease prefix bucket token restore checkpoint process state signal folder index chunk user request"
    .split(" ");

function noise(bytes: number, next: () => number): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  for (let i = 0; i < words.length; i++) words[i] = next();
  return new Uint8Array(words.buffer, 0, bytes);
}

/** Lines of a log: compresses about as well as one. */
function text(bytes: number, next: () => number): Uint8Array {
  let lines = "";
  while (lines.length < bytes) {
    lines += `{"time":"2026-01-${next() % 28 + 1}T${next() % 24}:${next() % 60}","level":"info","message":"${
      WORDS[next() % WORDS.length]
    } ${WORDS[next() % WORDS.length]}","id":${next()},"bytes":${next() % 4096}}\n`;
  }
  return new TextEncoder().encode(lines.slice(0, bytes));
}

function writeLarge(path: string, bytes: number, content: (bytes: number) => Uint8Array): void {
  using file = Deno.openSync(path, { write: true, create: true });
  for (let at = 0; at < bytes; at += 4 * MIB) file.writeSync(content(Math.min(4 * MIB, bytes - at)));
}

function withDatabase(path: string, use: (database: DatabaseSync) => void): void {
  const database = new DatabaseSync(path);
  try {
    use(database);
  } finally {
    database.close();
  }
}

const ROW_BYTES = 400;

function makeDatabase(path: string, bytes: number, next: () => number): void {
  withDatabase(path, (database) => {
    database.exec(
      "CREATE TABLE notes(id INTEGER PRIMARY KEY, at INTEGER, kind TEXT, body TEXT, hash BLOB); BEGIN",
    );
    const insert = database.prepare("INSERT INTO notes(at, kind, body, hash) VALUES (?, ?, ?, ?)");
    for (let n = 0; n < bytes / ROW_BYTES; n++) {
      const body = new TextDecoder().decode(text(280, next));
      insert.run(next(), WORDS[next() % WORDS.length] ?? "", body, noise(64, next));
    }
    database.exec("COMMIT");
  });
}

/** A third of bytes that do not compress, a third of logs, a third of a SQLite database. */
export function mixed(totalBytes: number): DataSet {
  const third = Math.floor(totalBytes / 3);
  return {
    name: `${Math.round(totalBytes / 1e6)} MB mixed`,
    isWide: false,
    make(folder) {
      const next = generator(1);
      Deno.mkdirSync(`${folder}/logs`, { recursive: true });
      writeLarge(`${folder}/photos.bin`, third, (bytes) => noise(bytes, next));
      for (let n = 0; n < 6; n++) {
        writeLarge(`${folder}/logs/${n}.log`, third / 6, (bytes) => text(bytes, next));
      }
      makeDatabase(`${folder}/notes.db`, third, next);
      return Promise.resolve();
    },
    change(folder) {
      const next = generator(2);
      using photos = Deno.openSync(`${folder}/photos.bin`, { write: true });
      photos.seekSync(third / 2, Deno.SeekMode.Start);
      photos.writeSync(noise(third / 100, next));
      Deno.writeFileSync(`${folder}/logs/5.log`, text(third / 100, next), { append: true });
      withDatabase(`${folder}/notes.db`, (database) => {
        const rows = Math.floor(third / ROW_BYTES);
        const from = Math.floor(rows / 3);
        database.prepare("UPDATE notes SET at = at + 1, hash = ? WHERE id BETWEEN ? AND ?")
          .run(noise(64, next), from, from + Math.floor(rows / 100));
      });
      return Promise.resolve();
    },
  };
}

const FILES_PER_FOLDER = 100;

/** Small files as in a tree of sources: 3 KB on average. */
export function small(count: number): DataSet {
  const path = (folder: string, n: number) => `${folder}/${Math.floor(n / FILES_PER_FOLDER)}/file-${n}.txt`;
  return {
    name: `${count} small files`,
    isWide: true,
    make(folder) {
      const next = generator(3);
      for (let n = 0; n < count; n++) {
        if (n % FILES_PER_FOLDER === 0) {
          Deno.mkdirSync(`${folder}/${n / FILES_PER_FOLDER}`, { recursive: true });
        }
        Deno.writeFileSync(path(folder, n), text(200 + next() % 5600, next));
      }
      return Promise.resolve();
    },
    change(folder) {
      const next = generator(4);
      for (let n = 0; n < count; n += 100) {
        Deno.writeFileSync(path(folder, n), text(200 + next() % 5600, next));
      }
      return Promise.resolve();
    },
  };
}
