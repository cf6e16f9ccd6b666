/** Sizes as people write them: `10MiB` (1024s), `10MB` (1000s), or a number of bytes. Strict, no guessing at `10M`. */

const FACTOR: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** Bytes (whole, at least 0), or null when `value` is not a size. Text that is only a number counts bytes. */
export function parseSize(value: string | number): number | null {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0 ? value : null;
  const match = /^(\d{1,15}(?:\.\d{1,3})?)(B|[kKMGT]B|[KMGT]iB)?$/.exec(value);
  if (match === null) return null;
  const bytes = Math.round(Number(match[1]) * (FACTOR[match[2] ?? "B"] ?? 1));
  const fraction = match[1]?.includes(".") ?? false;
  if (fraction && (match[2] ?? "B") === "B") return null; // half a byte is a typing error
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** The exact size in the largest binary unit that divides it: `10MiB`, `1500B`. `parseSize` reads it back. */
export function formatSize(bytes: number): string {
  let rest = bytes;
  let unit = "B";
  for (const next of ["KiB", "MiB", "GiB", "TiB"]) {
    if (rest === 0 || rest % 1024 !== 0) break;
    rest /= 1024;
    unit = next;
  }
  return `${rest}${unit}`;
}
