/** One run of a probe: asks once, within its time limit, and gives null or what is wrong. Never rejects. */

import type { Clock } from "../platform/clock.ts";
import { askLine, tryConnect } from "../platform/tcp.ts";
import { piecesOf } from "./lines.ts";
import { runCommand } from "./command.ts";
import type { Launch } from "./launch.ts";
import type { ProbeCheck, ProbeSpec } from "./probe_types.ts";
import type { ChildWatch } from "./units.ts";

/** A status line is short; what sends more before its end is no HTTP server. */
const ANSWER_LIMIT_BYTES = 4_096;
const STATUS_LINE = /^HTTP\/1\.[01] ([1-5][0-9]{2})(?: |\r?\n)/;
/** Longer lines of output are looked at to here. */
export const LINE_LIMIT_CHARS = 4_096;

export interface CheckContext {
  /** Of the process that is probed. */
  readonly name: string;
  readonly cwd: string | null;
  /** A command as the process itself is started: its environment, user and limits. May throw. */
  readonly launch: (argv: readonly string[]) => Launch;
  readonly clock: Clock;
  readonly watch: () => ChildWatch;
}

/** Resolves with null where it succeeded, else with the failure in words. `signal` ends it at once. */
export async function runCheck(
  spec: ProbeSpec,
  context: CheckContext,
  signal: AbortSignal,
): Promise<string | null> {
  const { check, timeoutMs } = spec;
  if (check.kind === "exec") return await checkCommand(check.command, timeoutMs, context, signal);
  const timer = new AbortController();
  const late = `no answer within ${timeoutMs / 1_000} s`;
  const done = new AbortController();
  context.clock.sleep(timeoutMs, { signal: done.signal }).then(() => timer.abort(), () => {});
  try {
    return await ask(check, AbortSignal.any([signal, timer.signal]));
  } catch (error) {
    return timer.signal.aborted ? late : words(error);
  } finally {
    done.abort();
  }
}

async function ask(check: ProbeCheck, signal: AbortSignal): Promise<string | null> {
  switch (check.kind) {
    case "tcp":
      await tryConnect(check.host, check.port, signal);
      return null;
    case "http":
      return await checkHttp(check, signal);
    default:
      return `${check.kind}: nothing to ask`;
  }
}

/**
 * A GET of our own rather than fetch: it asks the very host and port, whatever proxy the environment names, follows
 * no redirect, and reads no body.
 */
async function checkHttp(check: ProbeCheck & { kind: "http" }, signal: AbortSignal): Promise<string | null> {
  const { host, port, path } = check;
  const headers = new Map([
    ["host", `${host.includes(":") ? `[${host}]` : host}:${port}`],
    ["user-agent", "state-manager-probe"],
    ["accept", "*/*"],
  ]);
  for (const [name, value] of Object.entries(check.headers)) headers.set(name.toLowerCase(), value);
  headers.set("connection", "close");
  const lines = [`GET ${path} HTTP/1.1`, ...[...headers].map(([name, value]) => `${name}: ${value}`)];
  const request = new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`);
  const answer = await askLine({ host, port, request, limitBytes: ANSWER_LIMIT_BYTES, signal });
  const status = STATUS_LINE.exec(new TextDecoder("latin1").decode(answer))?.[1];
  if (status === undefined) return answer.length === 0 ? "no answer: connection closed" : "no HTTP answer";
  const code = Number(status);
  return code >= 200 && code < 400 ? null : `HTTP ${status}`;
}

/** In its own group, all of which is killed at the time limit and taken in; its last line tells why it failed. */
async function checkCommand(
  argv: readonly string[],
  limitMs: number,
  context: CheckContext,
  signal: AbortSignal,
): Promise<string | null> {
  const { name, cwd, launch, clock, watch } = context;
  let lastLine = "";
  const decoder = new TextDecoder();
  try {
    const { command, args, env } = launch(argv);
    await runCommand({
      name: `probe of ${name}`,
      argv: [command, ...args],
      env,
      cwd,
      limitMs,
      clock,
      output: (_name, batch) => {
        for (const { text } of piecesOf(batch)) {
          if (text.length > 0) lastLine = decoder.decode(text.subarray(0, LINE_LIMIT_CHARS));
        }
        return null;
      },
      watch: watch(),
      signal,
    });
    return null;
  } catch (error) {
    const what = words(error).replace(`run probe of ${name}: `, "");
    return lastLine === "" ? what : `${what}: ${lastLine}`;
  }
}

/** The system's words, without the runtime's. */
function words(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/^tcp connect error: /i, "").replace(/ \(os error \d+\)/g, "");
}

/** True where `line` holds all pieces, one after the other. Takes one pass, whatever the line. */
export function lineMatches(line: string, pieces: readonly string[]): boolean {
  const text = line.slice(0, LINE_LIMIT_CHARS);
  let from = 0;
  for (const piece of pieces) {
    const at = text.indexOf(piece, from);
    if (at < 0) return false;
    from = at + piece.length;
  }
  return true;
}
