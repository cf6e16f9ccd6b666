/** The benchmark's data: reproducible, half of it compressible, sizes from a few hundred bytes to megabytes. */

export interface DataSize {
  readonly bytes: number;
  readonly files: number;
}

/** mulberry32: small, seeded, good enough for content that must not compress. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

const WORDS = "lease prefix bucket token restore checkpoint process state signal folder index chunk".split(
  " ",
);

function content(bytes: number, next: () => number): Uint8Array {
  if (next() % 2 === 0) {
    const words = new Uint32Array(Math.ceil(bytes / 4));
    for (let i = 0; i < words.length; i++) words[i] = next();
    return new Uint8Array(words.buffer, 0, bytes);
  }
  let text = "";
  while (text.length < bytes) text += `${WORDS[next() % WORDS.length]} ${next()} `;
  return new TextEncoder().encode(text.slice(0, bytes));
}

const PER_FOLDER = 100;

function pathOf(root: string, n: number): string {
  return `${root}/${Math.floor(n / PER_FOLDER)}/${n}`;
}

/** Nine files of ten share a tenth of the bytes, the tenth one is large: as trees of programs are. */
export async function makeData(root: string, size: DataSize, seed: number): Promise<void> {
  const next = generator(seed + 1);
  const large = Math.max(1, Math.floor(size.files / 10));
  const largeBytes = Math.floor(size.bytes * 0.9 / large);
  const smallBytes = Math.floor(size.bytes * 0.1 / Math.max(1, size.files - large));
  for (let n = 0; n < size.files; n++) {
    if (n % PER_FOLDER === 0) await Deno.mkdir(`${root}/${n / PER_FOLDER}`, { recursive: true });
    await Deno.writeFile(pathOf(root, n), content(n % 10 === 0 ? largeBytes : smallBytes, next));
  }
}

/** Rewrites a part of every fiftieth file in place. */
export async function touchData(root: string, size: DataSize, seed: number): Promise<void> {
  const next = generator(seed + 1_000_003);
  for (let n = 0; n < size.files; n += 50) {
    using file = await Deno.open(pathOf(root, n), { write: true });
    await file.write(content(256, next));
  }
}
