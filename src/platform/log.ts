/** Logging behind one file: LogTape today. A line is a plain sentence and fields; secrets are `Secret`s and print as `***`. */

import { configure, getLogger } from "@logtape/logtape";

export type LogLevel = "debug" | "info" | "warn" | "error";
/** Values must be JSON-able; a `Secret` prints as `***`. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** The log of one part of the program, e.g. `log("lease")`. Silent until `configureLog` was called. */
export function log(category: string): Log {
  const logger = getLogger(["state-manager", category]);
  return {
    debug: (message, fields = {}) => logger.debug(message, fields),
    info: (message, fields = {}) => logger.info(message, fields),
    warn: (message, fields = {}) => logger.warn(message, fields),
    error: (message, fields = {}) => logger.error(message, fields),
  };
}

export { configure };
