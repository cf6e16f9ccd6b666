/** One file into another, compressed with zstd. Synchronous: for a Worker. */

import zlib from "node:zlib";

/** Each piece is a frame of its own, so memory stays bounded; zstd and its tools read frames one after the other. */
const PIECE_BYTES = 1 << 20;

/**
 * Replaces `to`. When it returns the bytes are on the disk: the other file may go. Gives the inode that
 * was read, since a name may come to mean another file meanwhile. Throws what the system says.
 */
export function compressFile(from: string, to: string, mode: number): number | null {
  using source = Deno.openSync(from);
  using target = Deno.openSync(to, { write: true, create: true, truncate: true, mode });
  const piece = new Uint8Array(PIECE_BYTES);
  for (let count = source.readSync(piece); count !== null; count = source.readSync(piece)) {
    // Its size goes into its header: readers find their way from frame to frame without what is in them.
    const options: zlib.ZstdOptions & { pledgedSrcSize: number } = { pledgedSrcSize: count }; // the types lag behind
    const frame = zlib.zstdCompressSync(piece.subarray(0, count), options);
    for (let written = 0; written < frame.length;) written += target.writeSync(frame.subarray(written));
  }
  const facts = source.statSync();
  // It stays as old as what it holds.
  if (facts.mtime !== null) target.utimeSync(facts.mtime, facts.mtime);
  target.syncDataSync();
  return facts.ino;
}
