/**
 * The terminal that we were started at, lent to one program: the program stays in our session, in a group of its own
 * that becomes the terminal's foreground group. So the kernel sends ctrl-C, ctrl-Z and changes of the window's size to
 * it and not to us, and a shell can move its jobs to and from the foreground. Where libc cannot be opened, or there is
 * no terminal, nobody lends anything.
 */

import { isAlive, readProcesses } from "./proc.ts";

const O_RDWR = 2;
const O_NOCTTY = 0o400;
const O_CLOEXEC = 0o2000000;
const SIG_BLOCK = 0;
const SIG_SETMASK = 2;
const TCSADRAIN = 1;
/** Sent to a group in the background that changes the terminal; blocked, the kernel allows the change. */
const SIGTTOU = 22;
const SIGNAL_SET_BYTES = 128;
/** struct termios has 60 bytes. */
const MODES_BYTES = 64;

function openLibc() {
  try {
    return Deno.dlopen("libc.so.6", {
      open: { parameters: ["buffer", "i32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
      getpgrp: { parameters: [], result: "i32" },
      setpgid: { parameters: ["i32", "i32"], result: "i32" },
      tcgetpgrp: { parameters: ["i32"], result: "i32" },
      tcsetpgrp: { parameters: ["i32", "i32"], result: "i32" },
      tcgetattr: { parameters: ["i32", "buffer"], result: "i32" },
      tcsetattr: { parameters: ["i32", "i32", "buffer"], result: "i32" },
      pthread_sigmask: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    }).symbols;
  } catch {
    return null;
  }
}

type Libc = NonNullable<ReturnType<typeof openLibc>>;

let opened: Libc | null | undefined;
const libc = () => opened === undefined ? (opened = openLibc()) : opened;

/** What `act` gives for our controlling terminal; null where we have none. */
function atTerminal<T>(act: (libc: Libc, terminal: number) => T): T | null {
  const symbols = libc();
  if (symbols === null) return null;
  // Without a controlling terminal this fails, whatever our standard streams are.
  const terminal = symbols.open(new TextEncoder().encode("/dev/tty\0"), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) return null;
  try {
    return act(symbols, terminal);
  } finally {
    symbols.close(terminal);
  }
}

/** Runs `act` as one whom the terminal does not stop for being in the background. */
function unstopped(libc: Libc, act: () => void): void {
  const blocked = new Uint8Array(SIGNAL_SET_BYTES);
  blocked[(SIGTTOU - 1) >> 3] = 1 << ((SIGTTOU - 1) & 7);
  const before = new Uint8Array(SIGNAL_SET_BYTES);
  libc.pthread_sigmask(SIG_BLOCK, blocked, before);
  try {
    act();
  } finally {
    libc.pthread_sigmask(SIG_SETMASK, before, null);
  }
}

/** The terminal while a program has it. */
export interface TerminalLoan {
  /** The program's group `groupId` is gone: the terminal is ours again, in the modes that it had before. */
  takeBack(groupId: number): void;
}

/** Before a program that is to have the terminal is started; null where it is not ours to lend. */
export function lendTerminal(): TerminalLoan | null {
  return atTerminal((libc, terminal) => {
    // Somebody else is in the foreground: a shell that runs us with `&`.
    if (libc.tcgetpgrp(terminal) !== libc.getpgrp()) return null;
    const modes = new Uint8Array(MODES_BYTES);
    const known = libc.tcgetattr(terminal, modes) === 0;
    return { takeBack: (groupId) => takeBack(groupId, known ? modes : null) };
  });
}

function takeBack(groupId: number, modes: Uint8Array<ArrayBuffer> | null): void {
  atTerminal((libc, terminal) => {
    const front = libc.tcgetpgrp(terminal);
    const own = libc.getpgrp();
    // A shell that put us into the background meanwhile has given it to somebody who lives.
    if (front !== own && front !== groupId && hasMembers(front)) return;
    unstopped(libc, () => {
      libc.tcsetpgrp(terminal, own);
      if (modes !== null) libc.tcsetattr(terminal, TCSADRAIN, modes);
    });
  });
}

/** True also where that cannot be told. */
function hasMembers(groupId: number): boolean {
  try {
    return readProcesses().some((info) => info.groupId === groupId && isAlive(info));
  } catch {
    return true;
  }
}

/** For the program, before it is the program: a group of its own, in the terminal's foreground. */
export function moveToForeground(): void {
  const own = Deno.pid;
  atTerminal((libc, terminal) => {
    libc.setpgid(0, 0);
    unstopped(libc, () => void libc.tcsetpgrp(terminal, own));
  });
}
