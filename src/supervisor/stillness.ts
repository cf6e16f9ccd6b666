/**
 * Whether a process is to stand still, and what it is owed meanwhile. Since the lease may be in doubt, nothing but KILL
 * reaches a process that is frozen: a stop signal, with the CONT that goes with it, waits until all go on. Pure.
 */

/** Whom a stop signal is meant for. */
export type Asked = "group" | "leader";

export class Stillness {
  #isFrozen = false;
  #owed: Asked | null = null;

  get isFrozen(): boolean {
    return this.#isFrozen;
  }

  freeze(): void {
    this.#isFrozen = true;
  }

  /** It goes on. Returns who has to be asked to end before it does; null: nobody. */
  thaw(): Asked | null {
    const owed = this.#owed;
    this.#isFrozen = false;
    this.#owed = null;
    return owed;
  }

  /** True where the stop signal may be sent now; else it is owed. */
  mayAsk(whom: Asked): boolean {
    if (!this.#isFrozen) return true;
    if (this.#owed !== "group") this.#owed = whom;
    return false;
  }

  /** Nothing of that incarnation is left. */
  forget(): void {
    this.#owed = null;
  }
}
