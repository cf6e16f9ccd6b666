/** What every simulated machine has: lives that end in crashes, pauses of any length, and procedures that wait. */

import type { Reply } from "./lossy_network.ts";
import type { StormyWorld } from "./stormy_world.ts";

/** What a procedure waits for: a request or time. */
export type Wait =
  | { readonly type: "request"; readonly apply: () => unknown }
  | { readonly type: "sleep"; readonly ms: number };
export type Procedure<T = void> = Generator<Wait, T, Reply<unknown>>;

export abstract class StormyMachine {
  readonly index: number;
  readonly #world: StormyWorld;
  #life = 0;
  #pausedUntilMs = 0;

  constructor(world: StormyWorld, index: number) {
    this.#world = world;
    this.index = index;
  }

  /** A new life, with nothing in memory. */
  abstract powerOn(): void;

  /** What a life has in memory goes. */
  protected abstract stop(): void;

  /** Between any two requests; true when it died of it. */
  protected abstract disturb(): boolean;

  protected get life(): number {
    return this.#life;
  }

  protected endLife(): void {
    this.#life++;
    this.stop();
  }

  protected crash(longestMs: number): void {
    this.#world.count("crash");
    this.#world.trace(() => `${this.index} crashes`);
    this.endLife();
    this.#world.at(this.#world.nowMs + this.#world.chance.between(100, longestMs), () => this.powerOn());
  }

  protected pause(longestMs: number): void {
    this.#world.count("pause");
    this.#pausedUntilMs = this.#world.nowMs + this.#world.chance.between(1_000, longestMs);
    this.#world.trace(() => `${this.index} stops until ${this.#pausedUntilMs.toFixed(0)}`);
  }

  /** Carries a procedure out until it ends or the machine crashes. */
  protected spawn(procedure: Procedure): void {
    const go = (reply: Reply<unknown>) => {
      const next = procedure.next(reply);
      if (next.done === true) return;
      const wait = next.value;
      if (wait.type === "sleep") {
        return this.#later(this.#world.nowMs + wait.ms, () => go({ type: "done", value: null }));
      }
      if (this.disturb()) return;
      this.#later(this.#world.nowMs, () => {
        const life = this.#life;
        this.#world.request(wait.apply, (answer) => {
          if (life === this.#life) this.#later(this.#world.nowMs, () => go(answer));
        });
      });
    };
    go({ type: "done", value: null });
  }

  /** Runs when the machine runs, and only in the life that asked for it. */
  #later(atMs: number, run: () => void): void {
    const life = this.#life;
    this.#world.at(atMs, () => {
      if (life !== this.#life) return;
      if (this.#world.nowMs < this.#pausedUntilMs) this.#later(this.#pausedUntilMs, run);
      else run();
    });
  }
}
