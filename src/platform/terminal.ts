/** The terminal of a command: standard streams, written synchronously and whole, and questions to a person. */

import { StateManagerError } from "./errors.ts";

export interface Terminal {
  /** Data, for the next program in the pipe. */
  out(text: string): void;
  /** The same, for what is no text. */
  outBytes(bytes: Uint8Array): void;
  /** Talk, for people. */
  err(text: string): void;
  /** True when a person can be asked: both sides of the talk are a terminal. */
  readonly canAsk: boolean;
  /** True when talk goes to a terminal: progress may rewrite its line there. */
  readonly errIsTerminal: boolean;
  /** True when data may carry colours. */
  readonly outHasColor: boolean;
  /** The line that a person types, without its end; null at the end of input. */
  ask(question: string): Promise<string | null>;
  /** All of standard input, at most `limitBytes`. */
  readAll(limitBytes: number): Promise<string>;
}

/** The reader of our output went away (`… | head`): there is nobody to tell anything. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

const encoder = new TextEncoder();

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, data: string | Uint8Array): void {
  const bytes = typeof data === "string" ? encoder.encode(data) : data;
  let written = 0;
  try {
    while (written < bytes.length) written += stream.writeSync(bytes.subarray(written));
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) throw new OutputClosed("standard output was closed");
    throw error;
  }
}

/** Longest answer that is read from a person. */
const MAX_ANSWER_BYTES = 1024;

async function readLine(): Promise<string | null> {
  const bytes: number[] = [];
  const one = new Uint8Array(1);
  while (bytes.length < MAX_ANSWER_BYTES) {
    const count = await Deno.stdin.read(one);
    if (count === null) return bytes.length === 0 ? null : new TextDecoder().decode(new Uint8Array(bytes));
    if (one[0] === 10) break;
    bytes.push(one[0] ?? 0);
  }
  return new TextDecoder().decode(new Uint8Array(bytes)).replace(/\r$/, "");
}

async function readStandardInput(limitBytes: number): Promise<string> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of Deno.stdin.readable) {
    size += piece.length;
    if (size > limitBytes) {
      throw new StateManagerError("usage", `read standard input: more than ${limitBytes} bytes`);
    }
    pieces.push(piece);
  }
  return new TextDecoder().decode(await new Blob(pieces as BlobPart[]).arrayBuffer());
}

/** This process's terminal. */
export function systemTerminal(): Terminal {
  const errIsTerminal = Deno.stderr.isTerminal();
  return {
    out: (text) => writeAll(Deno.stdout, text),
    outBytes: (bytes) => writeAll(Deno.stdout, bytes),
    err: (text) => writeAll(Deno.stderr, text),
    canAsk: Deno.stdin.isTerminal() && errIsTerminal,
    errIsTerminal: errIsTerminal && Deno.env.get("TERM") !== "dumb",
    outHasColor: outputHasColor(),
    async ask(question) {
      writeAll(Deno.stderr, question);
      return await readLine();
    },
    readAll: readStandardInput,
  };
}

/** True when a person types our input and sees our output. */
export function isAtTerminal(): boolean {
  return Deno.stdin.isTerminal() && Deno.stdout.isTerminal();
}

/** True when standard output may carry colours. */
export function outputHasColor(): boolean {
  return Deno.stdout.isTerminal() && !Deno.noColor && Deno.env.get("TERM") !== "dumb";
}
