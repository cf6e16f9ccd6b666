/** When changes of files restart a process: once they have calmed down, and not without end. Pure. */

/** Editors and deployments write many files: only when none came for this long it is over. */
export const WATCH_SETTLE_MS = 300;
/** One that never calms down is taken all the same. */
export const WATCH_LONGEST_MS = 5_000;
/** More than this many restarts within the window, and the process itself changes what it watches: it is suspended. */
export const FLAP_LIMIT = 10;
export const FLAP_WINDOW_MS = 60_000;

export interface WatchState {
  /** Monotonic: of the first and of the last change that was not answered yet. */
  readonly changedSinceMs: number | null;
  readonly changedAtMs: number | null;
  readonly restartsMs: readonly number[];
  readonly suspended: boolean;
}

export const NEW_WATCH_STATE: WatchState = {
  changedSinceMs: null,
  changedAtMs: null,
  restartsMs: [],
  suspended: false,
};

export function noteChange(state: WatchState, nowMs: number): WatchState {
  if (state.suspended) return state;
  return { ...state, changedSinceMs: state.changedSinceMs ?? nowMs, changedAtMs: nowMs };
}

/** When `settle` is due; null: nothing changed. */
export function settledAtMs({ changedSinceMs, changedAtMs }: WatchState): number | null {
  if (changedSinceMs === null || changedAtMs === null) return null;
  return Math.min(changedAtMs + WATCH_SETTLE_MS, changedSinceMs + WATCH_LONGEST_MS);
}

export type WatchVerdict = "nothing" | "restart" | "suspend";

export function settle(state: WatchState, nowMs: number): { state: WatchState; verdict: WatchVerdict } {
  const dueMs = settledAtMs(state);
  if (dueMs === null || nowMs < dueMs) return { state, verdict: "nothing" };
  const calm = { ...state, changedSinceMs: null, changedAtMs: null };
  const recent = state.restartsMs.filter((time) => time > nowMs - FLAP_WINDOW_MS);
  if (recent.length >= FLAP_LIMIT) {
    return { state: { ...calm, restartsMs: [], suspended: true }, verdict: "suspend" };
  }
  return { state: { ...calm, restartsMs: [...recent, nowMs] }, verdict: "restart" };
}
