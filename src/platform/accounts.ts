/** Users and groups of this machine, as /etc/passwd and /etc/group say. No directory service is asked. */

import { isMissing } from "./local_files.ts";

export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

export interface Group {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

export interface AccountFiles {
  readonly accounts: readonly Account[];
  readonly groups: readonly Group[];
}

/** Ids above are "none" to the kernel (-1) or do not fit. */
const LARGEST_ID = 0xffff_fffe;

function idOf(text: string | undefined): number | null {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return null;
  const id = Number(text);
  return id <= LARGEST_ID ? id : null;
}

/** Lines that are none of an account (comments, NIS's "+") are passed over, as libc does. */
export function parseAccounts(text: string): Account[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , uidText, gidText, , home = ""] = line.split(":");
    const uid = idOf(uidText);
    const gid = idOf(gidText);
    return name === "" || name.startsWith("#") || uid === null || gid === null
      ? []
      : [{ name, uid, gid, home }];
  });
}

export function parseGroups(text: string): Group[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , gidText, members = ""] = line.split(":");
    const gid = idOf(gidText);
    if (name === "" || name.startsWith("#") || gid === null) return [];
    return [{ name, gid, members: members.split(",").map((member) => member.trim()).filter(Boolean) }];
  });
}

/** Who a process is to be, in numbers. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
  /** Every supplementary group, the own one included. */
  readonly groups: readonly number[];
  /** Null where the number has no entry. */
  readonly account: Account | null;
}

/**
 * What `user` and `group`, each a name or a number, mean; `ownUid` stays where only a group is given. A text is what is
 * wrong. A user without an entry needs a group: its group would else be 0, root's.
 */
export function resolveIdentity(
  wanted: { readonly user: string | null; readonly group: string | null },
  { accounts, groups }: AccountFiles,
  ownUid: number,
): Identity | string {
  const { user, group } = wanted;
  const uidWanted = user === null ? ownUid : idOf(user);
  // Names before numbers, as chown and su do; a name of digits alone is allowed by some.
  const account = accounts.find(({ name }) => name === user) ??
    accounts.find(({ uid }) => uid === uidWanted) ?? null;
  const uid = account?.uid ?? uidWanted;
  if (uid === null) return `user ${user} is not in /etc/passwd`;
  const named = groups.find(({ name }) => name === group);
  const gid = group === null ? account?.gid ?? null : named?.gid ?? idOf(group);
  if (gid === null) {
    return group === null
      ? `user ${user} is not in /etc/passwd, so its group must be given by group`
      : `group ${group} is not in /etc/group`;
  }
  const supplementary = groups.filter(({ members }) => account !== null && members.includes(account.name));
  return { uid, gid, groups: [...new Set([gid, ...supplementary.map((one) => one.gid)])], account };
}

type ReadText = (path: string) => string;

/** Of a file that is not there, or not for us, nothing; any other failure is thrown: it says nothing of what is in there. */
function textOf(path: string, read: ReadText): string {
  try {
    return read(path);
  } catch (error) {
    if (isMissing(error) || error instanceof Deno.errors.PermissionDenied) return "";
    throw error;
  }
}

/**
 * Read at each use: they are short, and an image's start scripts may add users; images without users have neither file.
 * Throws where one cannot be read just now, such as for want of descriptors.
 */
export function readAccountFiles(read: ReadText = Deno.readTextFileSync): AccountFiles {
  return {
    accounts: parseAccounts(textOf("/etc/passwd", read)),
    groups: parseGroups(textOf("/etc/group", read)),
  };
}

const CAP_SETGID = 6n;
const CAP_SETUID = 7n;

/**
 * True when this process may become anybody: root with its capabilities, or a process that was given them. Throws as
 * `readAccountFiles` does.
 */
export function mayChangeIdentity(): boolean {
  const status = textOf("/proc/self/status", Deno.readTextFileSync);
  const caps = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  if (caps === undefined) return Deno.uid() === 0;
  const effective = BigInt(`0x${caps}`);
  return ((effective >> CAP_SETGID) & (effective >> CAP_SETUID) & 1n) === 1n;
}

export function ownIds(): { readonly uid: number; readonly gid: number } {
  return { uid: Deno.uid() ?? 0, gid: Deno.gid() ?? 0 };
}
