import { EntryList, type PackEntry } from "../../src/checkpoint/pack.ts";

/** The entries as a pack's footer has them. */
export function entryList(entries: Iterable<PackEntry>): EntryList {
  const list = new EntryList();
  for (const entry of entries) list.push(entry);
  return list;
}
