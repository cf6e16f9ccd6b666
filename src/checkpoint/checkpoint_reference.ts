/** How people name a checkpoint: its id, its ordinal (`3` or `v3`), or `latest`. */

/** `latest`, the id in lower case, or the ordinal as plain digits; null when it can be none of these. */
export function parseCheckpointReference(text: string): string | null {
  const lower = text.toLowerCase();
  if (lower === "latest") return lower;
  const ordinal = /^v?0*([1-9][0-9]{0,14})$/.exec(lower)?.[1];
  if (ordinal !== undefined) return ordinal;
  return /^[0-7][0-9a-hjkmnp-tv-z]{25}$/.test(lower) ? lower : null;
}
