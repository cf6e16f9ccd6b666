/**
 * Waits for descriptors that the runtime knows nothing of: pipes and processes. One thread waits in the kernel for all of
 * them, and only while there is anything to wait for; like a child of the runtime's own, that keeps us from our end.
 */

const EPOLL_CLOEXEC = 0o2000000;
const EVENTFD_FLAGS = 0o2000000 | 0o4000; // not inherited, never blocks
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 1;
const EPOLLONESHOT = 1 << 30;
/** struct epoll_event: events, then 64 bits of ours; x86-64 alone leaves no gap between them. */
const EVENT_BYTES = Deno.build.arch === "x86_64" ? 12 : 16;
const DATA_AT = EVENT_BYTES - 8;
const MOST_EVENTS = 128;
/** Of what long work may follow, so many in one turn of the loop. */
const HEAVY_IN_TURN = 8;
/** Stands for the descriptor that ends a wait. */
const WAKE = 0;

function openLibc() {
  try {
    return Deno.dlopen("libc.so.6", {
      epoll_create1: { parameters: ["i32"], result: "i32" },
      epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
      epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32", nonblocking: true },
      eventfd: { parameters: ["u32", "i32"], result: "i32" },
      read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
      write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
      close: { parameters: ["i32"], result: "i32" },
    }).symbols;
  } catch {
    return null;
  }
}

type Libc = NonNullable<ReturnType<typeof openLibc>>;

export interface Watched {
  /**
   * Calls `act` once, in a turn of its own, when there is something to read or nobody can write any more. True from it:
   * long work may follow in that turn, of which few have room. What it throws is an uncaught error of this process, and
   * nobody else's.
   */
  arm(act: () => boolean | void): void;
  /** Does at once what it was armed for, if it was: for one who knows that the descriptor may be ready. */
  act(): void;
  /** Reads what is there; 0: the end; less than 0: nothing yet. */
  read(into: Uint8Array): number;
  /** Before the descriptor is closed. What it was armed for does not come any more. */
  release(): void;
}

export class ReadyDescriptors {
  readonly #libc: Libc;
  readonly #epoll: number;
  readonly #wake: number;
  readonly #change = new Uint8Array(EVENT_BYTES);
  readonly #changeView = new DataView(this.#change.buffer);
  readonly #events = new Uint8Array(MOST_EVENTS * EVENT_BYTES);
  readonly #eventsView = new DataView(this.#events.buffer);
  /** By a number of ours: a descriptor's own may be given away again before its event is looked at. */
  readonly #armed = new Map<number, () => boolean | void>();
  #lastId = WAKE;
  #waits = false;
  #isInKernel = false;

  private constructor(libc: Libc, epoll: number, wake: number) {
    this.#libc = libc;
    this.#epoll = epoll;
    this.#wake = wake;
    this.#control(EPOLL_CTL_ADD, wake, WAKE, EPOLLIN);
  }

  /** Null where this machine has not what it takes. */
  static open(): ReadyDescriptors | null {
    const libc = openLibc();
    if (libc === null) return null;
    const epoll = libc.epoll_create1(EPOLL_CLOEXEC);
    const wake = libc.eventfd(0, EVENTFD_FLAGS);
    if (epoll >= 0 && wake >= 0) return new ReadyDescriptors(libc, epoll, wake);
    for (const descriptor of [epoll, wake]) if (descriptor >= 0) libc.close(descriptor);
    return null;
  }

  watch(descriptor: number): Watched {
    const id = ++this.#lastId;
    let isKnown = false;
    return {
      arm: (act) => {
        this.#control(isKnown ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, descriptor, id, EPOLLIN | EPOLLONESHOT);
        isKnown = true;
        this.#armed.set(id, act);
        if (!this.#waits) void this.#wait();
      },
      read: (into) =>
        Number(this.#libc.read(descriptor, into as Uint8Array<ArrayBuffer>, BigInt(into.length))),
      act: () => void this.#act(id),
      release: () => {
        if (isKnown) this.#control(EPOLL_CTL_DEL, descriptor, id, 0);
        isKnown = false;
        if (this.#armed.delete(id)) this.#endWaitForNothing();
      },
    };
  }

  #act(id: number): boolean {
    const act = this.#armed.get(id);
    if (act === undefined) return false;
    this.#armed.delete(id);
    let isHeavy = false;
    try {
      isHeavy = act() === true;
    } catch (error) {
      reportError(error); // one that fails must not end the wait of all others
    }
    this.#endWaitForNothing();
    return isHeavy;
  }

  #control(operation: number, descriptor: number, id: number, events: number): void {
    this.#changeView.setUint32(0, events, true);
    this.#changeView.setUint32(DATA_AT, id, true);
    this.#libc.epoll_ctl(this.#epoll, operation, descriptor, this.#change);
  }

  /** Ends when nothing is armed. */
  async #wait(): Promise<void> {
    this.#waits = true;
    while (this.#armed.size > 0) {
      this.#isInKernel = true;
      const count = await this.#libc.epoll_wait(this.#epoll, this.#events, MOST_EVENTS, -1);
      this.#isInKernel = false;
      let heavy = 0;
      for (let index = 0; index < count; index++) {
        const id = this.#eventsView.getUint32(index * EVENT_BYTES + DATA_AT, true);
        if (id === WAKE) this.#libc.read(this.#wake, new Uint8Array(8), 8n);
        else if (this.#act(id) && ++heavy % HEAVY_IN_TURN === 0 && this.#isArmed(index + 1, count)) {
          await nextTurn();
        }
      }
    }
    this.#waits = false;
  }

  /** Whether anybody waits for one of these events. */
  #isArmed(from: number, to: number): boolean {
    for (let index = from; index < to; index++) {
      if (this.#armed.has(this.#eventsView.getUint32(index * EVENT_BYTES + DATA_AT, true))) return true;
    }
    return false;
  }

  #endWaitForNothing(): void {
    if (this.#armed.size > 0 || !this.#isInKernel) return;
    this.#libc.write(this.#wake, new Uint8Array(new BigUint64Array([1n]).buffer), 8n);
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

let opened: ReadyDescriptors | null = null;

/**
 * The one of this process, with its one thread; null where this machine has not what it takes, or just now no descriptors
 * for it.
 */
export function readyDescriptors(): ReadyDescriptors | null {
  return opened ??= ReadyDescriptors.open();
}
