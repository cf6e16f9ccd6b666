/** A pseudo-terminal whose other side is a program's terminal: types, reads, and changes the window's size. */

import { waitFor } from "./manager_process.ts";

const O_RDWR = 2;
const O_NOCTTY = 0o400;
const POLLIN = 1;
const TIOCSWINSZ = 0x5414n;
/** c_lflag of struct termios: what is typed comes by lines; it is echoed. */
const LOCAL_FLAGS_AT = 12;
const ICANON = 2;

// Opened once: it holds libc open for good, which a test's own check would take for a leak.
const libc = Deno.dlopen("libc.so.6", {
  posix_openpt: { parameters: ["i32"], result: "i32" },
  grantpt: { parameters: ["i32"], result: "i32" },
  unlockpt: { parameters: ["i32"], result: "i32" },
  ptsname: { parameters: ["i32"], result: "pointer" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  tcgetpgrp: { parameters: ["i32"], result: "i32" },
  tcgetattr: { parameters: ["i32", "buffer"], result: "i32" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  close: { parameters: ["i32"], result: "i32" },
}).symbols;

export class PseudoTerminal implements Disposable {
  readonly #master: number;
  /** Of the side that is the program's. */
  readonly path: string;
  #seen = "";
  /** What was seen by an earlier wait is not seen by a later one. */
  #at = 0;

  constructor(rows: number, columns: number) {
    this.#master = libc.posix_openpt(O_RDWR | O_NOCTTY);
    if (this.#master < 0 || libc.grantpt(this.#master) !== 0 || libc.unlockpt(this.#master) !== 0) {
      throw new Error("no pseudo-terminal is to be had");
    }
    const name = libc.ptsname(this.#master);
    if (name === null) throw new Error("a pseudo-terminal without a name");
    this.path = Deno.UnsafePointerView.getCString(name);
    this.resize(rows, columns);
  }

  /** Put before a command: its session's terminal, and its standard streams. */
  get wrap(): string[] {
    return ["sh", "-c", `exec setsid --ctty "$@" <${this.path} >${this.path} 2>&1`, "sh"];
  }

  resize(rows: number, columns: number): void {
    const size = new Uint16Array([rows, columns, 0, 0]);
    libc.ioctl(this.#master, TIOCSWINSZ, new Uint8Array(size.buffer));
  }

  /** Process group that ctrl-C goes to. */
  get foreground(): number {
    return libc.tcgetpgrp(this.#master);
  }

  /** True where what is typed comes by lines; false in raw mode. */
  get byLines(): boolean {
    const modes = new Uint8Array(64);
    libc.tcgetattr(this.#master, modes);
    return (new DataView(modes.buffer).getUint32(LOCAL_FLAGS_AT, true) & ICANON) !== 0;
  }

  type(text: string): void {
    const bytes = new TextEncoder().encode(text);
    libc.write(this.#master, bytes, BigInt(bytes.length));
  }

  /** Waits until the screen shows `wanted`, behind what an earlier wait saw; returns the match. */
  async see(wanted: RegExp): Promise<RegExpExecArray> {
    return await waitFor(
      `${wanted} on the terminal`,
      () => {
        this.#read();
        const match = wanted.exec(this.#seen.slice(this.#at));
        if (match !== null) this.#at += match.index + match[0].length;
        return match;
      },
      60_000,
      () => this.#seen.slice(-3000),
    );
  }

  #read(): void {
    const record = new Uint8Array(8);
    const view = new DataView(record.buffer);
    const buffer = new Uint8Array(65_536);
    while (true) {
      view.setInt32(0, this.#master, true);
      view.setInt16(4, POLLIN, true);
      if (libc.poll(record, 1n, 0) <= 0 || (view.getInt16(6, true) & POLLIN) === 0) return;
      const count = Number(libc.read(this.#master, buffer, BigInt(buffer.length)));
      if (count <= 0) return;
      this.#seen += new TextDecoder().decode(buffer.subarray(0, count));
    }
  }

  [Symbol.dispose](): void {
    libc.close(this.#master);
  }
}
