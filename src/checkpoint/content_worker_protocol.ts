/**
 * What the archiver and its reading threads say to each other. Small buffers change threads by transfer, packs stay in
 * shared memory.
 */

import type { WireError } from "../platform/wire_error.ts";
import type { SharedClaims } from "./claim_table.ts";
import type { WireCipher } from "./cipher.ts";
import type { Compression } from "./compression.ts";
import type { DatabaseCopy, ReadJob } from "./content_job.ts";
import type { FilledPack, PackCredit } from "./pack_filler.ts";

export type ToWorker =
  | {
    readonly type: "start";
    readonly claims: SharedClaims;
    readonly cipher: WireCipher;
    readonly compression: Compression;
    readonly packBytes: number;
  }
  | { readonly type: "credit"; readonly credit: PackCredit }
  | { readonly type: "job"; readonly job: ReadJob }
  | { readonly type: "check"; readonly copy: DatabaseCopy }
  /** Gives out what is in the pack that is being filled, unless it is little. */
  | { readonly type: "send" }
  /** Gives out what is left; nothing may follow. */
  | { readonly type: "flush" };

export type FromWorker =
  /** Bytes read since the last one; also the sign of life. */
  | { readonly type: "progress"; readonly bytes: number }
  | { readonly type: "pack"; readonly pack: FilledPack }
  /** Answers, these two, come in the order of the jobs and checks. */
  | { readonly type: "done"; readonly outcomes: ArrayBuffer; readonly bytes: number }
  | { readonly type: "checked"; readonly problem: WireError | null }
  | { readonly type: "flushed" }
  /** The thread is of no use any more. */
  | { readonly type: "failed"; readonly error: WireError };
