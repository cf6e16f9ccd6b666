/**
 * Comments and labels of checkpoints in the head of an encrypted repository: what people write there may say as much as
 * the names of files. They are taken out of the records into one sealed text. All else of the head stays readable.
 */

import { Buffer } from "node:buffer";
import * as v from "valibot";
import type { Cipher } from "./cipher.ts";
import { damaged } from "./codec.ts";
import { HEAD_KEY } from "./ids.ts";
import type { CheckpointRecord, Head } from "./types.ts";

/** By checkpoint id. */
const notesSchema = v.record(
  v.string(),
  v.object({ comment: v.string(), labels: v.record(v.string(), v.string()) }),
);
type Notes = v.InferOutput<typeof notesSchema>;

/** Sealed under a name of their own: the bytes of no other object can stand for them. */
const NOTES_KEY = `${HEAD_KEY}/notes`;

/** The head as it is written: `notes` is base64 of the sealed comments and labels, left out where there are none. */
export function withSealedNotes(head: Head, cipher: Cipher): Head & { readonly notes?: string } {
  if (!cipher.seals) return head;
  const notes: Notes = {};
  const without = (record: CheckpointRecord): CheckpointRecord => {
    const { id, comment, labels } = record;
    if (comment !== "" || Object.keys(labels).length > 0) notes[id] = { comment, labels };
    return { ...record, comment: "", labels: {} };
  };
  const checkpoints = head.checkpoints.map(without);
  const intent = head.intent === null ? null : { ...head.intent, record: without(head.intent.record) };
  const bare = { ...head, checkpoints, intent };
  if (Object.keys(notes).length === 0) return bare;
  const sealed = cipher.sealObject(NOTES_KEY, new TextEncoder().encode(JSON.stringify(notes)));
  return { ...bare, notes: Buffer.from(sealed).toString("base64") };
}

/** The head as it was before `withSealedNotes`; without a cipher, without its notes. `data-damaged` where the seal is broken. */
export function withOpenNotes(
  { notes, ...head }: Head & { readonly notes?: string },
  cipher: Cipher | null,
): Head {
  if (notes === undefined || cipher === null) return head;
  if (!cipher.seals) throw damaged(HEAD_KEY, "has encrypted notes, and the repository is not encrypted");
  const text = cipher.openObject(NOTES_KEY, new Uint8Array(Buffer.from(notes, "base64")));
  const parsed = v.parse(notesSchema, JSON.parse(new TextDecoder().decode(text))); // sealed: we wrote it
  const withNotes = (record: CheckpointRecord): CheckpointRecord => ({ ...record, ...parsed[record.id] });
  const { intent } = head;
  return {
    ...head,
    checkpoints: head.checkpoints.map(withNotes),
    intent: intent === null ? null : { ...intent, record: withNotes(intent.record) },
  };
}
