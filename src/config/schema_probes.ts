/** The part of the schema that says how it is found out whether a process started, is ready and is well. */

import * as v from "valibot";
import {
  booleanSchema,
  described,
  durationSchema,
  integerSchema,
  listSchema,
  requiredKey,
  textSchema,
} from "./schema_values.ts";

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const MOST_ARGUMENTS = 1000;
const MOST_HEADERS = 32;
/** Linux takes no longer single argument (MAX_ARG_STRLEN). */
const LONGEST_ARGUMENT = 131_071;

const hostKey = described(
  "Host",
  "Where it listens. Default: 127.0.0.1.",
  v.pipe(
    v.string("a host: a name or an address"),
    v.regex(/^[A-Za-z0-9._:-]{1,253}$/, "a host: a name or an address"),
  ),
);
const portKey = requiredKey("Port", "Port that it listens on.", integerSchema(1, 65_535, "a port"));

const PATH_WANTED = "a path that begins with /, without spaces";
const headerName = v.pipe(
  v.string("a header's name"),
  v.regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$/, "a header's name"),
);
const HEADER_WANTED = "a header's value: printable ASCII";

const httpSchema = v.strictObject({
  port: portKey,
  host: hostKey,
  path: described(
    "Path",
    "What is asked for, with the query. Default: /.",
    v.pipe(v.string(PATH_WANTED), v.maxLength(2048, PATH_WANTED), v.regex(/^\/[\x21-\x7e]*$/, PATH_WANTED)),
  ),
  headers: described(
    "Headers",
    "Sent with the request.",
    v.pipe(
      v.record(
        headerName,
        v.pipe(v.string(HEADER_WANTED), v.regex(/^[\x20-\x7e]{0,4096}$/, HEADER_WANTED)),
        "an object of names and values",
      ),
      v.check((map) => Object.keys(map).length <= MOST_HEADERS, `at most ${MOST_HEADERS} headers`),
    ),
  ),
}, "an object");

const argument = v.pipe(
  v.string("a text"),
  v.maxLength(LONGEST_ARGUMENT, `at most ${LONGEST_ARGUMENT} characters`),
  v.check((text) => !text.includes("\0"), "a text without NUL"),
);

const execSchema = v.strictObject({
  command: requiredKey(
    "Command",
    "Program and arguments; it runs as the process does, in its folder and with its variables.",
    v.pipe(
      listSchema(argument, MOST_ARGUMENTS, "a list of texts"),
      v.check((list) => (list[0] ?? "") !== "", "a program and its arguments"),
    ),
  ),
}, "an object");

const logSchema = v.strictObject({
  contains: requiredKey(
    "Contains",
    "Text that one line of its output holds; `*` stands for any characters.",
    v.pipe(
      textSchema("a text with something besides *", 1000),
      v.check((text) => /[^*]/.test(text), "a text with something besides *"),
    ),
  ),
}, "an object");

const notifySchema = v.strictObject({
  watchdog: described(
    "Watchdog",
    "Of liveness: it says WATCHDOG=1 at least this often.",
    durationSchema(100, DAY_MS, "30s"),
  ),
  socket: described(
    "Socket",
    "Also hear what it sends in systemd's way, to $NOTIFY_SOCKET. Default: false.",
    booleanSchema,
  ),
}, "an object");

const probeSchema = v.strictObject({
  http: described("HTTP", "A GET that answers with a status from 200 to 399.", httpSchema),
  tcp: described("TCP", "A port that takes a connection.", v.strictObject({ port: portKey, host: hostKey })),
  exec: described("Command", "A command that ends with 0.", execSchema),
  log: described("Log", "A line of its output.", logSchema),
  notify: described("Notify", "What it says on the descriptor in $NOTIFY_FD.", notifySchema),
  initial_delay: described(
    "Initial delay",
    "From the start to the first time. Default: 0.",
    durationSchema(0, DAY_MS, "5s"),
  ),
  period: described(
    "Period",
    "From one time to the next. Default: 10s.",
    durationSchema(100, DAY_MS, "10s"),
  ),
  timeout: described(
    "Timeout",
    "Longest wait for the answer; a command is killed then. Default: 2s.",
    durationSchema(10, HOUR_MS, "2s"),
  ),
  failure_threshold: described(
    "Failure threshold",
    "Failures in a row that count. Default: 3.",
    integerSchema(1, 10_000, "failures"),
  ),
  success_threshold: described(
    "Success threshold",
    "Of readiness: successes in a row that count. Default: 1.",
    integerSchema(1, 10_000, "successes"),
  ),
}, "an object");

export const probesSchema = v.strictObject({
  startup: described("Startup", "Whether it has started. The other two begin when it has.", probeSchema),
  readiness: described("Readiness", "Whether it accepts work. Nothing is restarted for it.", probeSchema),
  liveness: described("Liveness", "Whether it is well. It is restarted when it is not.", probeSchema),
}, "an object");

export type ParsedProbe = v.InferOutput<typeof probeSchema>;
export type ParsedProbes = v.InferOutput<typeof probesSchema>;
