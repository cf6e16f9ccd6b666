/** Processes that are restarted when files change (`watch`): for development, not for production. */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError } from "../platform/errors.ts";
import { matchesPattern } from "../platform/name_pattern.ts";
import { watchFiles } from "../platform/watch_files.ts";
import type { SupervisorEvent, WatchSpec } from "./types.ts";
import { NEW_WATCH_STATE, noteChange, settle, settledAtMs, type WatchState } from "./watch_rules.ts";

/** A path that is not there yet, or could not be watched, is tried again this often. */
const TRY_AGAIN_MS = 2_000;

export interface WatchingOptions {
  readonly clock: Clock;
  readonly onEvent: (event: SupervisorEvent) => void;
  /** False: not now, ask again. */
  readonly restart: (name: string, detail: string) => boolean;
}

interface Armed {
  readonly spec: WatchSpec;
  readonly ended: AbortController;
  state: WatchState;
  lastPath: string;
  waiting: boolean;
  failureTold: boolean;
  /** It is suspended. */
  trouble: string | null;
}

export class Watching {
  readonly #options: WatchingOptions;
  readonly #armed = new Map<string, Armed>();
  #stopped = false;

  constructor(options: WatchingOptions) {
    this.#options = options;
  }

  /** These are watched from now on and no others; those that are the same go on undisturbed. */
  arm(specs: ReadonlyMap<string, WatchSpec>): void {
    if (this.#stopped) return;
    for (const [name, armed] of this.#armed) {
      const now = specs.get(name);
      if (now !== undefined && JSON.stringify(now) === JSON.stringify(armed.spec)) continue;
      armed.ended.abort();
      this.#armed.delete(name);
    }
    for (const [name, spec] of specs) {
      if (!this.#armed.has(name)) this.#begin(name, spec);
    }
  }

  /** A person started it: one that was suspended is watched again, and what changed before is past. */
  forget(name: string): void {
    const armed = this.#armed.get(name);
    if (armed === undefined) return;
    armed.state = NEW_WATCH_STATE;
    armed.trouble = null;
  }

  /** Why changes restart it no more; null: they do, or it is not watched at all. */
  troubleOf(name: string): string | null {
    return this.#armed.get(name)?.trouble ?? null;
  }

  stop(): void {
    this.#stopped = true;
    for (const { ended } of this.#armed.values()) ended.abort();
    this.#armed.clear();
  }

  #begin(name: string, spec: WatchSpec): void {
    const armed: Armed = {
      spec,
      ended: new AbortController(),
      state: NEW_WATCH_STATE,
      lastPath: "",
      waiting: false,
      failureTold: false,
      trouble: null,
    };
    this.#armed.set(name, armed);
    for (const path of spec.paths) void this.#watch(name, armed, path);
  }

  async #watch(name: string, armed: Armed, path: string): Promise<void> {
    const { clock, onEvent } = this.#options;
    const { signal } = armed.ended;
    while (!signal.aborted) {
      try {
        await watchFiles(path, {
          signal,
          onChange: (changed) => this.#changed(name, armed, path, changed),
        });
      } catch (error) {
        if (!armed.failureTold) {
          onEvent({ type: "watch-trouble", name, reason: asStateManagerError(error).message });
        }
        armed.failureTold = true;
      }
      await clock.sleep(TRY_AGAIN_MS, { signal }).catch(() => {});
    }
  }

  #changed(name: string, armed: Armed, root: string, path: string): void {
    if (armed.ended.signal.aborted || isIgnored(armed.spec, root, path)) return;
    armed.state = noteChange(armed.state, this.#options.clock.monotonicMs());
    armed.lastPath = path;
    if (!armed.waiting) void this.#answer(name, armed);
  }

  /** Waits until it is calm, then restarts. */
  async #answer(name: string, armed: Armed): Promise<void> {
    const { clock, onEvent, restart } = this.#options;
    const { signal } = armed.ended;
    armed.waiting = true;
    try {
      for (let dueMs = settledAtMs(armed.state); dueMs !== null; dueMs = settledAtMs(armed.state)) {
        await clock.sleep(dueMs - clock.monotonicMs(), { signal });
        const { state, verdict } = settle(armed.state, clock.monotonicMs());
        if (verdict === "restart" && !restart(name, `${armed.lastPath} changed`)) {
          armed.state = noteChange(armed.state, clock.monotonicMs());
          continue;
        }
        armed.state = state;
        if (verdict === "suspend") {
          const reason = `restarted too often: ${armed.lastPath} changes again and again`;
          armed.trouble = `not watched: ${reason}`;
          onEvent({ type: "watch-trouble", name, reason });
        }
      }
    } catch {
      // disarmed
    }
    armed.waiting = false;
  }
}

/** Our own folders and logs, and names that the configuration leaves out at any depth below `root`. */
export function isIgnored({ ignore, exclude }: WatchSpec, root: string, path: string): boolean {
  const isOurs = ignore.some((own) =>
    path === own || path.startsWith(`${own}/`) || path.startsWith(`${own}.`)
  );
  if (isOurs || path === root) return isOurs;
  const names = path.slice(root === "/" ? 1 : root.length + 1).split("/");
  return names.some((name) => exclude.some((pattern) => matchesPattern(pattern, name)));
}
