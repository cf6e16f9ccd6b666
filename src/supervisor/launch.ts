/**
 * What is handed to the kernel to start one incarnation: the environment with its files read anew, and the command,
 * wrapped by the exec helper where user, limits, umask or niceness are to be set. Throws SpawnError for what is wrong.
 */

import {
  type Identity,
  mayChangeIdentity,
  ownIds,
  readAccountFiles,
  resolveIdentity,
} from "../platform/accounts.ts";
import { SpawnError } from "../platform/child_process.ts";
import { selfCommand } from "../platform/entry.ts";
import type { ExecPlan } from "../platform/exec_helper.ts";
import { readSmallFile } from "../platform/small_file.ts";
import { ENV_FILE_LIMIT_BYTES, parseEnvFile } from "./env_file.ts";
import { readInherited } from "./inherited.ts";
import type { ProcessSpec } from "./types.ts";

export interface Launch {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** As whom it runs; null: as we do. */
  readonly user: Pick<Identity, "uid" | "gid" | "groups"> | null;
}

const CANNOT_RUN = 126;

/** `terminal`: it is to have ours, which the caller has lent (platform/foreground.ts). */
export function launchOf(spec: ProcessSpec, options: { readonly terminal?: boolean } = {}): Launch {
  const { terminal = false } = options;
  const own = { ...readEnvFiles(spec), ...spec.ownEnv };
  const env = { ...readEnvDir(spec), ...own };
  const [command = "", ...args] = spec.command;
  const { user, group, umask, nice, limits } = spec.execution;
  const identity = user === null && group === null ? null : identityOf(spec);
  const isPlain = !terminal && identity === null && umask === null && nice === null &&
    Object.keys(limits).length === 0;
  if (isPlain) return { command, args, env, user: null };
  const account = accountEnv(user === null ? null : identity, own);
  const ids = ownIds();
  // Where we are that user already there is nothing to change, and without privileges no way to.
  const isSelf = identity !== null && identity.uid === ids.uid && identity.gid === ids.gid &&
    !mayBecomeOthers(spec.name);
  const changed = identity === null || isSelf
    ? null
    : { uid: identity.uid, gid: identity.gid, groups: identity.groups };
  const plan: ExecPlan = {
    identity: changed,
    umask,
    nice,
    limits,
    terminal,
    env: account,
  };
  return { ...selfCommand(["__exec", JSON.stringify(plan), command, ...args]), env, user: changed };
}

/** What login sets, unless the configuration says otherwise: HOME of the manager's user is not this one's. */
function accountEnv(
  identity: Identity | null,
  own: Readonly<Record<string, string>>,
): Record<string, string> {
  if (identity === null) return {};
  const { account, uid } = identity;
  const name = account?.name ?? String(uid);
  const home = account?.home ?? "/";
  const all = { HOME: home === "" ? "/" : home, USER: name, LOGNAME: name };
  return Object.fromEntries(Object.entries(all).filter(([key]) => !Object.hasOwn(own, key)));
}

/** What `read` gives; that it cannot be read just now says nothing of who is in there: tried again. */
function reading<T>(name: string, what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw failed(name, `${what}: ${error instanceof Error ? error.message : error}`, false);
  }
}

function identityOf({ execution: { user, group }, name }: ProcessSpec): Identity {
  const own = ownIds();
  const files = reading(name, "read the users and groups of this machine", () => readAccountFiles());
  const identity = resolveIdentity({ user, group }, files, own.uid);
  if (typeof identity === "string") throw failed(name, identity);
  const changes = identity.uid !== own.uid || identity.gid !== own.gid;
  if (changes && !mayBecomeOthers(name)) {
    const wanted = `${user ?? "the same user"}${group === null ? "" : ` with group ${group}`}`;
    throw failed(
      name,
      `the manager runs as uid ${own.uid} without the right (CAP_SETUID, CAP_SETGID) to start it as ${wanted}`,
    );
  }
  return identity;
}

function mayBecomeOthers(name: string): boolean {
  return reading(name, "read what the manager may do", mayChangeIdentity);
}

function readEnvDir({ env, envDir, name }: ProcessSpec): Readonly<Record<string, string>> {
  if (envDir === null) return env;
  const variables = readInherited(envDir);
  // As with files of variables: tried again.
  if (typeof variables === "string") throw failed(name, `env_dir ${envDir.path}: ${variables}`, false);
  return variables;
}

function readEnvFiles({ envFiles, name }: ProcessSpec): Record<string, string> {
  const result: Record<string, string> = {};
  for (const path of envFiles) {
    const text = readSmallFile(path, ENV_FILE_LIMIT_BYTES);
    // Files of secrets come and go with their mounts: tried again like any other failure.
    if (text.error !== null) throw failed(name, `env_file ${path}: ${text.error}`, false);
    const parsed = parseEnvFile(text.content);
    if (typeof parsed === "string") throw failed(name, `env_file ${path}: ${parsed}`, false);
    Object.assign(result, parsed);
  }
  return result;
}

function failed(name: string, what: string, permanent = true): SpawnError {
  return new SpawnError(`start ${name}: ${what}`, CANNOT_RUN, permanent, undefined);
}
