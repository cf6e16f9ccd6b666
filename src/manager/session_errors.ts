/** What a session says where it cannot do what it is asked for. */

import { StateManagerError } from "../platform/errors.ts";
import type { ManagerState } from "./control.ts";
import type { Job } from "./session_types.ts";

export function notRunning(action: string, state: ManagerState): StateManagerError {
  return new StateManagerError("wrong-state", `${action}: the state is ${state}, wanted running`, {
    hint: "wait until it is running, then ask again",
  });
}

export function notOpenYet(): StateManagerError {
  return new StateManagerError("wrong-state", "session: the store is not open yet", {
    hint: "wait until it is running",
  });
}

/** `busy`: another moment will do; else not in this life. */
export function notReloadable(state: ManagerState, isStopping: boolean): StateManagerError {
  const isOver = state === "fenced" || state === "failed" || isStopping;
  return new StateManagerError(isOver ? "wrong-state" : "busy", `reload: the state is ${state}`, {
    hint: "wait until it is running, then ask again",
  });
}

export function underWay(wanted: Job["kind"], present: Job["kind"]): StateManagerError {
  return new StateManagerError("busy", `${wanted}: a ${present} is under way`, {
    hint: "wait until it is done",
  });
}

export function beingStopped(wanted: Job["kind"]): StateManagerError {
  return new StateManagerError("wrong-state", `${wanted}: the manager is being stopped`, {
    hint: "ask again when it has been started anew",
  });
}

/** A release or hand-over that does not take place. */
export function notShipped(wanted: Job["kind"], failure: StateManagerError): StateManagerError {
  return new StateManagerError(
    "state-not-saved",
    `${wanted} of the lease: the last state is not in the bucket: ${failure.message}`,
    {
      hint: "the lease is kept and the programs run again; try once more when the store answers",
      cause: failure,
    },
  );
}
