/**
 * A verification's other half: checkpoints name positions of replicated databases, whose bytes are the replica's. What is
 * wrong with these joins what is wrong with the checkpoints' own objects. For the manager as for a command without one.
 */

import { FINDINGS_LIMIT, type VerifyResult } from "../checkpoint/mod.ts";
import type { CheckpointRecord } from "../checkpoint/types.ts";
import type { PositionsRequest, PositionsResult } from "../database/mod.ts";

export type DatabasesDepth = Pick<PositionsRequest, "level" | "percent">;

export interface VerifyDatabasesOptions {
  readonly depth: DatabasesDepth;
  /** Those in question. */
  readonly records: readonly CheckpointRecord[];
  readonly verify: (
    request: DatabasesDepth & { readonly name: string; readonly txids: readonly number[] },
  ) => Promise<PositionsResult>;
  /** Ids of the checkpoints that are listed by then: retention keeps nothing for one that was deleted meanwhile. */
  readonly listed: () => Promise<ReadonlySet<string>>;
}

/** `result` with what was found in the databases' files. */
export async function withDatabases(
  result: VerifyResult,
  { depth, records, verify, listed }: VerifyDatabasesOptions,
): Promise<VerifyResult> {
  let all = result;
  for (const [name, users] of positionsIn(records)) {
    const found = await verify({ ...depth, name, txids: [...users.keys()] });
    const ids = found.findings.length > 0 ? await listed() : new Set<string>();
    const findings = found.findings.flatMap(({ txids, ...finding }) => {
      const needers = txids.flatMap((txid) => users.get(txid) ?? []).filter(({ id }) => ids.has(id));
      if (needers.length === 0) return [];
      const checkpoints = needers.sort((a, b) => a.n - b.n).map(({ id, n }) => ({ id, n }));
      return [{ ...finding, checkpoints, files: [], filesTotal: 0 }];
    });
    all = {
      ...all,
      positionsChecked: all.positionsChecked + users.size,
      databasesChecked: all.databasesChecked + found.restored,
      bytesRead: all.bytesRead + found.bytesRead,
      findings: [...all.findings, ...findings].slice(0, FINDINGS_LIMIT),
      findingsTotal: all.findingsTotal + findings.length,
    };
  }
  return all;
}

/** Database → TXID → the checkpoints that stand there. */
function positionsIn(records: readonly CheckpointRecord[]): Map<string, Map<number, CheckpointRecord[]>> {
  const databases = new Map<string, Map<number, CheckpointRecord[]>>();
  for (const record of records) {
    for (const [name, { txid }] of Object.entries(record.databases ?? {})) {
      if (txid === 0) continue; // nothing was committed yet
      const users = databases.get(name) ?? new Map<number, CheckpointRecord[]>();
      databases.set(name, users);
      users.set(txid, [...users.get(txid) ?? [], record]);
    }
  }
  return databases;
}
