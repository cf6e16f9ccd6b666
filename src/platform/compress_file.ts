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
    const frame = zlib.zstdCompressSync(piece.subarray(0, count));
    for (let written = 0; written < frame.length;) written += target.writeSync(frame.subarray(written));
  }
  target.syncDataSync();
  return source.statSync().ino;
}
