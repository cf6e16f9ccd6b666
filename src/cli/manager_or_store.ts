/** Commands that a running manager answers, and the store itself where none runs. */

import { isError, StateManagerError } from "../platform/errors.ts";
import { type Context, type Options, say } from "./context.ts";
import { namesStore } from "./store_options.ts";

/** The manager's answer; the store's when the options name one, or no manager runs and the configuration names one. */
export async function fromManagerOrStore<T>(
  context: Context,
  options: Options,
  askManager: (context: Context, options: Options) => Promise<T>,
  readStore: (context: Context, options: Options) => Promise<T>,
): Promise<T> {
  if (namesStore(options)) return await readStore(context, options);
  try {
    return await askManager(context, options);
  } catch (unreachable) {
    if (!isError(unreachable, "manager-unreachable") || options.any("url")) throw unreachable;
    let answer: T;
    try {
      answer = await readStore(context, options);
    } catch (error) {
      if (!isError(error, "config-invalid", "usage")) throw error;
      // Nothing names a store either.
      throw new StateManagerError("manager-unreachable", unreachable.message, {
        hint:
          `${
            unreachable.hint ?? ""
          }; with no manager name the store: --directory, or --bucket and --endpoint ` +
          "with --prefix, or --config",
        cause: error,
      });
    }
    say(context, options, "No manager answers: this is straight from the store.");
    return answer;
  }
}
