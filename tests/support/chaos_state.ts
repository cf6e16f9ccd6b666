/**
 * What the program of the crash tests keeps on disk, made so that every way of losing or tearing it shows.
 *
 * A counter lives in three columns of small files, two in one folder and one in another: value n goes to slot
 * n mod SLOTS of each column, columns one after the other, each by rename. The value of a state is the smallest of all
 * slots plus SLOTS - 1: exact on the disk of a program that was killed at any instruction, and never less than the
 * value at which the reading of a live tree began. Beside it lies ballast, whose bytes follow from their first word.
 */

export const SLOTS = 8;
const BALLAST_FILES = 40;
const BALLAST_WORDS = 24 * 1024;
/** Column → which of the two folders it lies in. */
const COLUMNS = [["a", 0], ["b", 0], ["c", 1]] as const;

export type StateFolders = readonly [one: string, two: string];

export interface DiskState {
  readonly value: number;
  /** The greatest value in any slot: more than `value` in a live capture, and after a kill between two columns. */
  readonly greatest: number;
  /** Files whose content is not whole. */
  readonly torn: readonly string[];
}

/** Atomic for readers and for a kill; nothing here survives a power cut, and nothing here has to. */
function replaceFile(path: string, content: string | Uint8Array): void {
  const beside = `${path}.new`;
  if (typeof content === "string") Deno.writeTextFileSync(beside, content);
  else Deno.writeFileSync(beside, content);
  Deno.renameSync(beside, path);
}

/** Both ends say the value, so that a piece of it is not a whole. */
function slotText(value: number): string {
  return `${value} ${"x".repeat(value % 1500)} ${value}\n`;
}

function* slotPaths(folders: StateFolders): Generator<{ path: string; slot: number }> {
  for (const [column, folder] of COLUMNS) {
    for (let slot = 0; slot < SLOTS; slot++) {
      yield { path: `${folders[folder]}/count/${column}${slot}`, slot };
    }
  }
}

/** Puts `value` into its slot of each column. */
export function writeValue(folders: StateFolders, value: number): void {
  for (const [column, folder] of COLUMNS) {
    replaceFile(`${folders[folder]}/count/${column}${value % SLOTS}`, slotText(value));
  }
}

/** The value that slot `slot` holds when `value` is the newest; 0 and less: none yet. */
function heldIn(slot: number, value: number): number {
  return value - ((value - slot) % SLOTS + SLOTS) % SLOTS;
}

function ballastWords(first: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(BALLAST_WORDS);
  let word = first >>> 0 || 1;
  for (let i = 0; i < BALLAST_WORDS; i++) {
    words[i] = word;
    word ^= word << 13;
    word ^= word >>> 17;
    word = (word ^ (word << 5)) >>> 0;
  }
  return new Uint8Array(words.buffer);
}

export function writeBallast(folders: StateFolders, index: number, first: number): void {
  replaceFile(`${folders[1]}/ballast/${index % BALLAST_FILES}`, ballastWords(first));
}

function ballastIsWhole(bytes: Uint8Array<ArrayBuffer>): boolean {
  if (bytes.length !== BALLAST_WORDS * 4) return false;
  const wanted = ballastWords(new DataView(bytes.buffer).getUint32(0, true));
  return bytes.every((byte, i) => byte === wanted[i]);
}

function readIfThere(path: string): Uint8Array<ArrayBuffer> | null {
  try {
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Reads everything; changes nothing. */
export function readState(folders: StateFolders): DiskState {
  const torn: string[] = [];
  let least = Infinity;
  let greatest = 0;
  for (const { path, slot } of slotPaths(folders)) {
    const bytes = readIfThere(path);
    let value = slot === 0 ? 0 : slot - SLOTS; // never written
    if (bytes !== null) {
      const text = new TextDecoder().decode(bytes);
      value = Number.parseInt(text);
      if (text !== slotText(value) || value % SLOTS !== slot) {
        torn.push(path);
        continue;
      }
    }
    least = Math.min(least, value);
    greatest = Math.max(greatest, value);
  }
  let ballast = 0;
  for (let index = 0; index < BALLAST_FILES; index++) {
    const path = `${folders[1]}/ballast/${index}`;
    const bytes = readIfThere(path);
    if (bytes === null) continue;
    ballast++;
    if (!ballastIsWhole(bytes)) torn.push(path);
  }
  const value = Math.max(0, least + SLOTS - 1);
  if (value > 0 && ballast < BALLAST_FILES) torn.push(`${folders[1]}/ballast: ${ballast} files`);
  return { value, greatest, torn };
}

/** Makes the folders, and where nothing is yet the ballast: a state of value 0. */
export function beginState(folders: StateFolders, seed: number): void {
  for (const folder of folders) Deno.mkdirSync(`${folder}/count`, { recursive: true });
  Deno.mkdirSync(`${folders[1]}/ballast`, { recursive: true });
  for (let index = 0; index < BALLAST_FILES; index++) {
    if (readIfThere(`${folders[1]}/ballast/${index}`) === null) {
      writeBallast(folders, index, seed + index * 7919);
    }
  }
}

/** Takes back what is newer than `value`, so that the state is exactly that one. */
export function settleState(folders: StateFolders, value: number): void {
  for (const { path, slot } of slotPaths(folders)) {
    const held = heldIn(slot, value);
    if (held > 0) replaceFile(path, slotText(held));
    else if (readIfThere(path) !== null) Deno.removeSync(path);
  }
}
