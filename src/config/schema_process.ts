/** The part of the schema that says what one process is. */

import * as v from "valibot";
import { PASSABLE } from "../platform/signals.ts";
import { logsSchema } from "./schema_logs.ts";
import { probesSchema } from "./schema_probes.ts";
import {
  booleanSchema,
  choiceSchema,
  described,
  durationSchema,
  forwardSchema,
  integerSchema,
  listSchema,
  mapSchema,
  pathSchema,
  requiredKey,
  scheduleSchema,
  signalSchema,
  sizeSchema,
  textSchema,
} from "./schema_values.ts";
import { parseSize } from "./size.ts";

/** What one manager can start, watch and show without becoming slow. */
export const MOST_PROCESSES = 256;
/** Linux takes no longer single argument or variable (MAX_ARG_STRLEN). */
const LONGEST_ARGUMENT = 131_071;
const SECOND_MS = 1000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

const environmentName = v.pipe(
  v.string("a variable's name"),
  v.regex(/^[A-Za-z_][A-Za-z0-9_]{0,254}$/, "a variable's name: letters, digits and _"),
);

const startLimitSchema = v.strictObject({
  burst: described("Burst", "So many failures. Default: 10.", integerSchema(1, 1000, "failures")),
  interval: described(
    "Interval",
    "In this time. Default: 5m, or more with long restart delays.",
    durationSchema(SECOND_MS, 7 * DAY_MS, "5m"),
  ),
  rearm: described(
    "Rearm",
    "So long after it hit the limit it is tried anew, instead of being failed. Default: it is failed.",
    durationSchema(SECOND_MS, 7 * DAY_MS, "10m"),
  ),
}, "an object");

const commandText = v.pipe(
  v.string("a list of texts, or a text with shell: true"),
  v.nonEmpty("a command"),
  v.maxLength(LONGEST_ARGUMENT, `at most ${LONGEST_ARGUMENT} characters`),
  v.check((text) => !text.includes("\0"), "a command without NUL"),
);

const argumentText = v.pipe(
  v.string("a text"),
  v.maxLength(LONGEST_ARGUMENT, `at most ${LONGEST_ARGUMENT} characters`),
  v.check((text) => !text.includes("\0"), "a text without NUL"),
);

const environmentValue = v.pipe(
  v.union([v.string(), v.number(), v.boolean()], "a text"),
  v.transform(String),
  v.maxLength(LONGEST_ARGUMENT, `at most ${LONGEST_ARGUMENT} characters`),
  v.check((text) => !text.includes("\0"), "a text without NUL"),
);

/** How a process can end: a code, or the signal that ended it. */
function endSchema(least: number) {
  return v.union(
    [integerSchema(least, 255, "an exit code"), signalSchema("a signal", ["SIGSTOP", "SIGCONT", "SIGCHLD"])],
    `an exit code from ${least} to 255, or a signal's name such as SIGTERM`,
  );
}

const restartChoice = choiceSchema(["always", "on-failure", "no"]);

/** Arguments as a list, or one text for /bin/sh. */
export const hookSchema = v.union(
  [
    commandText,
    v.pipe(v.array(argumentText), v.nonEmpty("a command"), v.maxLength(1000, "at most 1000 arguments")),
  ],
  "a list of texts, or a line for /bin/sh",
);

const envFilePath = pathSchema("a file");
const envFilesSchema = v.pipe(
  v.union(
    [envFilePath, listSchema(envFilePath, 16, "a list of files")],
    "an absolute path, or a list of them",
  ),
  v.transform((value): readonly string[] => typeof value === "string" ? [value] : value),
);

/** A name as useradd allows it, or a number; checked against /etc/passwd and /etc/group at each start. */
function accountSchema(what: string) {
  const wanted = `${what}: a name or a number`;
  return v.pipe(
    v.union([v.string(), v.pipe(v.number(), v.integer(wanted), v.minValue(0, wanted))], wanted),
    v.transform(String),
    v.regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\$?$/, wanted),
  );
}

const UMASK_WANTED = 'a mask in octal as a text, from "0000" to "0777"';
const umaskSchema = v.pipe(
  v.string(UMASK_WANTED),
  v.regex(/^0?[0-7]{3}$/, UMASK_WANTED),
  v.transform((text) => Number.parseInt(text, 8)),
);

function limitSchema(title: string, description: string, counts: "bytes" | "number") {
  const wanted = counts === "bytes"
    ? 'a size such as 64MiB, or "unlimited"'
    : 'a whole number, or "unlimited"';
  const most = Number.MAX_SAFE_INTEGER;
  return described(
    title,
    description,
    v.pipe(
      v.union([v.string(wanted), v.number(wanted)], wanted),
      v.rawTransform<string | number, number | null>(({ dataset, addIssue, NEVER }) => {
        if (dataset.value === "unlimited") return null;
        const value = counts === "bytes" || typeof dataset.value === "number"
          ? parseSize(dataset.value)
          : null;
        if (value !== null && value <= most) return value;
        addIssue({ message: wanted });
        return NEVER;
      }),
    ),
  );
}

const limitsSchema = v.strictObject({
  nofile: limitSchema("Open files", "Highest number of open files.", "number"),
  nproc: limitSchema("Processes", "Processes and threads of its user.", "number"),
  cpu: limitSchema("CPU time", "Seconds of CPU time, then it is ended.", "number"),
  core: limitSchema("Core file", "Size of a core file; 0: none.", "bytes"),
  fsize: limitSchema("File size", "Size of a file that it writes.", "bytes"),
  memlock: limitSchema("Locked memory", "Memory that it may lock.", "bytes"),
  stack: limitSchema("Stack", "Size of its stack.", "bytes"),
}, "an object");

const MEMORY_LEAST = 1_048_576;
const memoryLimitSchema = v.pipe(
  v.union([
    sizeSchema(MEMORY_LEAST, "512MiB"),
    v.strictObject({
      max: requiredKey(
        "Most memory",
        "Above it for so long, and it is restarted.",
        sizeSchema(MEMORY_LEAST, "512MiB"),
      ),
      warn: described(
        "Warning",
        "From here on there is a warning. Default: 90 % of max.",
        sizeSchema(MEMORY_LEAST, "450MiB"),
      ),
      for: described("For", "So long without a break. Default: 15s.", durationSchema(0, DAY_MS, "15s")),
    }, "an object"),
  ], "a size such as 512MiB, or an object with max, warn and for"),
  v.transform((value): { max: number; warn?: number | undefined; for?: number | undefined } =>
    typeof value === "number" ? { max: value } : value
  ),
);

const watchPath = pathSchema("a file or folder");
const watchPaths = v.pipe(
  v.union([watchPath, listSchema(watchPath, 64, "a list of paths")], "an absolute path, or a list of them"),
  v.transform((value): readonly string[] => typeof value === "string" ? [value] : value),
);
const watchSchema = v.pipe(
  v.union([
    watchPaths,
    v.strictObject({
      paths: requiredKey("Paths", "Files, and folders with all below them.", watchPaths),
      exclude: described(
        "Exclude",
        "Names that do not count, at any depth: * any characters, ? one, a leading dot only by a dot. Default: none but those of editors and git.",
        listSchema(textSchema("a pattern of names", 255), 256, "a list of patterns"),
      ),
    }, "an object"),
  ], "an absolute path, a list of them, or an object with paths and exclude"),
  v.transform((value): { paths: readonly string[]; exclude?: readonly string[] | undefined } =>
    "paths" in value ? value : { paths: value }
  ),
);

const CONDITIONS = ["started", "ready", "completed", "succeeded"] as const;
const dependencyObject = v.strictObject({
  condition: requiredKey(
    "Condition",
    "What must be true of it before this one starts.",
    choiceSchema(CONDITIONS),
  ),
  restart_with: described(
    "Restart with",
    "This one stops before that one stops or restarts, or when it fails, and starts after it. Default: false.",
    booleanSchema,
  ),
}, "an object");
const dependencySchema = v.pipe(
  v.union(
    [choiceSchema(CONDITIONS), dependencyObject],
    "started, ready, completed or succeeded, or an object with condition and restart_with",
  ),
  v.transform((value): v.InferOutput<typeof dependencyObject> =>
    typeof value === "string" ? { condition: value } : value
  ),
);

export const processSchema = v.strictObject({
  command: requiredKey(
    "Command",
    "Program and arguments as a list; with `shell: true` a line for /bin/sh.",
    v.union(
      [
        commandText,
        v.pipe(v.array(argumentText), v.nonEmpty("a command"), v.maxLength(1000, "at most 1000 arguments")),
      ],
      "a list of texts, or a text with shell: true",
    ),
  ),
  shell: described("Shell", "Run `command` by /bin/sh -c. Default: false.", booleanSchema),
  cwd: described(
    "Working folder",
    "Folder that it starts in. Default: the manager's.",
    pathSchema("a folder"),
  ),
  env: described(
    "Variables",
    "Added to the manager's own variables, which never include AWS_* and STATE_MANAGER_*.",
    v.pipe(
      v.record(environmentName, environmentValue, "an object of names and values"),
      v.check((map) => Object.keys(map).length <= 1000, "at most 1000 variables"),
    ),
  ),
  env_from: described(
    "Variables from the manager",
    "Names of AWS_* and STATE_MANAGER_* variables that it gets.",
    listSchema(environmentName, 256, "a list of variable names"),
  ),
  env_file: described(
    "Files of variables",
    "File of NAME=value lines, or a list of them: read at each start, over the inherited variables, under `env`.",
    envFilesSchema,
  ),
  user: described(
    "User",
    "Name or number of the user that it runs as, with all its groups. Default: the manager's.",
    accountSchema("a user"),
  ),
  group: described(
    "Group",
    "Name or number of its group. Default: that of `user` in /etc/passwd.",
    accountSchema("a group"),
  ),
  umask: described(
    "File mode mask",
    'Rights that files it makes never have, such as "0027". Default: the manager\'s.',
    umaskSchema,
  ),
  nice: described(
    "Niceness",
    "From -20, first served, to 19, last. Below that of the manager only as root. Default: the manager's.",
    integerSchema(-20, 19, "a niceness"),
  ),
  limits: described(
    "Limits",
    'Resource limits, soft and hard; a number or "unlimited". Default: those of the manager.',
    limitsSchema,
  ),
  schedule: described(
    "Schedule",
    "Cron expression, or {cron, time_zone}: it is started at these times, or with restart: always restarted.",
    scheduleSchema,
  ),
  watch: described(
    "Watch",
    "Files and folders whose change restarts it, for development: a path, a list, or {paths, exclude}.",
    watchSchema,
  ),
  memory_limit: described(
    "Memory limit",
    "Memory of all its processes together: above it for 15 s it is restarted. A size, or {max, warn, for}.",
    memoryLimitSchema,
  ),
  depends_on: described(
    "Depends on",
    "Other processes, and what must be true of each before this one starts: started, ready, completed, succeeded, or {condition, restart_with}.",
    mapSchema(dependencySchema, MOST_PROCESSES, "an object"),
  ),
  restart: described(
    "Restart",
    "When to start it again after it ended. Default: always, with `schedule` or `watch` no.",
    restartChoice,
  ),
  restart_delay: described(
    "Restart delay",
    "Wait before the first restart; doubles with each failure. 0s: none after a run of a second or more. Default: that of `supervisor`.",
    durationSchema(0, HOUR_MS, "1s"),
  ),
  restart_max_delay: described(
    "Longest restart delay",
    "The delay grows to this. Default: 30s.",
    durationSchema(10, HOUR_MS, "30s"),
  ),
  start_limit: described(
    "Start limit",
    "So many failures in so much time, and it counts as failed. Default: 10 in 5m.",
    startLimitSchema,
  ),
  timeout_stop: described(
    "Stop timeout",
    "Time to end after the stop signal, then it is killed. Default: that of `supervisor`.",
    durationSchema(0, DAY_MS, "90s"),
  ),
  stop_signal: described(
    "Stop signal",
    "Signal that asks it to end. Default: SIGTERM.",
    signalSchema("the stop signal", ["SIGSTOP", "SIGCONT", "SIGCHLD"]),
  ),
  stop_mode: described(
    "Stop mode",
    "Who gets the stop signal: its whole `group`, or with `mixed` its leader alone, and who is left when that one has ended is killed. Default: group.",
    choiceSchema(["group", "mixed"]),
  ),
  stop_command: described(
    "Stop command",
    "Asks it to end, before the stop signal, which comes when this is over; the process's number is in MAINPID. A list, or a line for /bin/sh. Default: none.",
    hookSchema,
  ),
  finish_command: described(
    "Finish command",
    "Runs when nothing of it is left, before it is started again, at most 5s; how it ended is in EXIT_CODE, EXIT_STATUS and SERVICE_RESULT. A list, or a line for /bin/sh. Default: none.",
    hookSchema,
  ),
  success_exit: described(
    "Successful ends",
    "Exit codes besides 0, and signals by name, that are no failure; 143 and SIGTERM are two different ends.",
    listSchema(endSchema(1), 300, "a list of exit codes and signals"),
  ),
  no_restart_on: described(
    "Last ends",
    "Exit codes and signals after which it is not restarted, whatever `restart` says.",
    listSchema(endSchema(0), 300, "a list of exit codes and signals"),
  ),
  essential: described(
    "Essential",
    "When it fails for good, everything stops with its exit code. Default: true for a lone process without `schedule` and `watch`.",
    booleanSchema,
  ),
  probes: described(
    "Probes",
    "Whether it started, accepts work and is well. Default: none; running for 1s is ready.",
    probesSchema,
  ),
  timeout_start: described(
    "Start timeout",
    "Not ready after this, it is restarted as a failure; 0: no limit. Default: 60s with a startup or readiness probe.",
    durationSchema(0, DAY_MS, "60s"),
  ),
  forward_signals: described(
    "Forwarded signals",
    'Signals that the manager passes on to it, or an object of them such as {"SIGHUP": "SIGUSR1"}: it gets another one. With SIGQUIT among them that one no longer stops the manager.',
    forwardSchema(PASSABLE, "the manager cannot take others, or they mean itself"),
  ),
  logs: described("Logs", "What becomes of its output.", logsSchema),
  interactive: described(
    "Interactive",
    "It owns the manager's standard input, output and terminal: for a shell. Nothing of it is logged. One process only. Default: false.",
    booleanSchema,
  ),
  reload_signal: described(
    "Reload signal",
    "Makes it read its own configuration again; sent when the manager reloads.",
    signalSchema("the reload signal", ["SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD"]),
  ),
}, "an object");

export type ParsedProcess = v.InferOutput<typeof processSchema>;
