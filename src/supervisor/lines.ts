/** From bytes to lines, and the last of them kept. Bounded whatever a program writes; the bytes stay as they are. */

/** One line, or a piece of one. */
export interface OutputPiece {
  readonly text: Uint8Array<ArrayBuffer>;
  /** True when no newline ended it: the line goes on in the next piece, or broke off. */
  readonly partial: boolean;
}

/** Docker's limit of one log message; longer lines come in pieces. */
export const LINE_LIMIT_BYTES = 16 * 1024;

const NEWLINE = 10;
const RETURN = 13;

/** Splits one stream at newlines; `\r\n` counts as one. Pieces are copies: the caller may reuse its buffer. */
export class LineSplitter {
  readonly #pending = new Uint8Array(LINE_LIMIT_BYTES);
  readonly #emit: (piece: OutputPiece) => void;
  #length = 0;

  constructor(emit: (piece: OutputPiece) => void) {
    this.#emit = emit;
  }

  /** Bytes that wait for their newline. */
  get pendingBytes(): number {
    return this.#length;
  }

  push(chunk: Uint8Array): void {
    let from = 0;
    while (from < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, from);
      if (this.#length === 0 && newline >= 0 && newline - from <= LINE_LIMIT_BYTES) {
        // The common case, a whole line at once: one copy instead of two.
        const end = newline > from && chunk[newline - 1] === RETURN ? newline - 1 : newline;
        this.#emit({ text: new Uint8Array(chunk.subarray(from, end)), partial: false });
        from = newline + 1;
        continue;
      }
      this.#append(chunk.subarray(from, newline < 0 ? chunk.length : newline));
      if (newline < 0) return;
      this.#flushLine(false);
      from = newline + 1;
    }
  }

  /** Emits what waits as a partial piece: the stream ended or went quiet. */
  flush(): void {
    if (this.#length > 0) this.#flushLine(true);
  }

  #append(bytes: Uint8Array): void {
    let from = 0;
    while (this.#length + bytes.length - from > LINE_LIMIT_BYTES) {
      const room = LINE_LIMIT_BYTES - this.#length;
      this.#pending.set(bytes.subarray(from, from + room), this.#length);
      this.#length = LINE_LIMIT_BYTES;
      from += room;
      this.#flushLine(true);
    }
    this.#pending.set(bytes.subarray(from), this.#length);
    this.#length += bytes.length - from;
  }

  #flushLine(partial: boolean): void {
    const end = !partial && this.#pending[this.#length - 1] === RETURN ? this.#length - 1 : this.#length;
    this.#length = 0;
    this.#emit({ text: this.#pending.slice(0, end), partial });
  }
}

/** One kept piece of output. */
export interface OutputLine {
  /** Grows by one with each piece of this process, across its restarts. */
  readonly sequence: number;
  readonly wallMs: number;
  readonly stream: "stdout" | "stderr";
  readonly text: string;
  readonly partial: boolean;
}

/** Enough for a person to see what happened, little enough for a hundred processes. */
export const RING_LIMIT_LINES = 1000;
export const RING_LIMIT_BYTES = 256 * 1024;

interface Kept extends OutputPiece {
  readonly wallMs: number;
  readonly stream: "stdout" | "stderr";
}

/** The last lines of one process: at most RING_LIMIT_LINES and RING_LIMIT_BYTES. */
export class LineRing {
  readonly #slots: (Kept | undefined)[] = new Array(RING_LIMIT_LINES).fill(undefined);
  #first = 0;
  #count = 0;
  #bytes = 0;
  #sequence = 0;

  push(line: Kept): void {
    const size = line.text.length;
    while (this.#count === RING_LIMIT_LINES || (this.#count > 0 && this.#bytes + size > RING_LIMIT_BYTES)) {
      this.#bytes -= this.#slots[this.#first]?.text.length ?? 0;
      this.#slots[this.#first] = undefined;
      this.#first = (this.#first + 1) % RING_LIMIT_LINES;
      this.#count--;
    }
    this.#slots[(this.#first + this.#count) % RING_LIMIT_LINES] = line;
    this.#count++;
    this.#bytes += size;
    this.#sequence++;
  }

  /** The last `limit` lines, oldest first. */
  last(limit = RING_LIMIT_LINES): OutputLine[] {
    const decoder = new TextDecoder();
    const lines: OutputLine[] = [];
    for (let index = Math.max(0, this.#count - limit); index < this.#count; index++) {
      const kept = this.#slots[(this.#first + index) % RING_LIMIT_LINES];
      if (kept === undefined) continue;
      const { wallMs, stream, partial } = kept;
      const sequence = this.#sequence - this.#count + index + 1;
      lines.push({ sequence, wallMs, stream, text: decoder.decode(kept.text), partial });
    }
    return lines;
  }
}
