/**
 * How requests are sent to a store that has told, by refusing one, how it wants them. What is refused this way has not been
 * done, so it may be sent again, conditional or not.
 */

import type { BodyChecksum, S3Answer, S3Request } from "./request.ts";
import { parseErrorDocument } from "./xml.ts";

export interface Manner {
  /** The store's clock instead of the machine's in signatures: the two are too far apart for it. */
  readonly signsByStore: boolean;
  /** Of each put: the bucket keeps objects for a time (Object Lock) and takes none without one. */
  readonly checksum: BodyChecksum | null;
}

export const FIRST_MANNER: Manner = { signsByStore: false, checksum: null };

/** S3 allows 15 minutes. An answer to HEAD has no reason: a third of it is one. */
const NOTICEABLE_SKEW_MS = 5 * 60_000;

/**
 * The manner in which a request is worth sending again that was refused in `manner`; null: it is not. `skewMs`: how far the
 * machine's clock is from the store's, null where that is not known.
 */
export function mannerAfter(
  manner: Manner,
  { method }: Pick<S3Request, "method">,
  { status, body }: Pick<S3Answer, "status" | "body">,
  skewMs: number | null,
): Manner | null {
  if (status !== 403 && status !== 400) return null;
  const { code = "", message = "" } = parseErrorDocument(new TextDecoder().decode(body)) ?? {};
  if (status === 403 && !manner.signsByStore && skewMs !== null && Math.abs(skewMs) > NOTICEABLE_SKEW_MS) {
    const isAboutTime = code === "RequestTimeTooSkewed" || method === "HEAD";
    return isAboutTime ? { ...manner, signsByStore: true } : null;
  }
  if (status === 400 && method === "PUT" && manner.checksum === null && /required/i.test(message)) {
    if (/x-amz-checksum/i.test(message)) return { ...manner, checksum: "sha256" };
    if (/content-md5/i.test(message)) return { ...manner, checksum: "md5" };
  }
  return null;
}
