/**
 * Compression of stored bytes: zstd frames, or raw where zstd gains nothing. The frame format is the same whichever
 * of the two engines made it: the runtime's own (not every version has a working one), else zstd in WebAssembly. Frames
 * are unpacked by the system's libzstd where it can be loaded. Decompression never gives more than the declared length,
 * whatever the frame says.
 */

import { Buffer } from "node:buffer";
import * as zlib from "node:zlib";
import { assert } from "../platform/assert.ts";
import { StateManagerError } from "../platform/errors.ts";
import { type NativeZstd, nativeZstd } from "../platform/libzstd.ts";

/** The default: level 3 costs 35 to 65 % more time for 3 to 9 % of size. */
export const FAST_LEVEL = 1;
/** Worth its time where the store is slower than the reading. */
export const SLOW_STORE_LEVEL = 3;
/** A tenth of the default's speed; above it the time grows much faster than the size falls. */
export const MAX_LEVEL = 12;

/** In the place of the default for blocks of a database and for small files: up to a fifth faster there, and smaller. */
const SMALL_LEVEL = 2;
const SMALL_BYTES = 64 * 1024;
/** Of the default, so that its table stays in the nearest cache: a tenth to a sixth faster, for 1 to 4 % of size. */
const FAST_HASH_LOG = 12;

/** At or above this share of the plain size the bytes are stored raw: reading them back is then a copy. */
const RAW_FROM_SHARE = 0.97;

/** A frame costs at least this much; shorter content is never compressed. */
const SMALLEST_COMPRESSED_BYTES = 64;

export interface Codec {
  readonly engine: "native" | "wasm";
  /** `level` of zstd, 1 to 19; the default is `FAST_LEVEL`. The frame may be good until the next call only. */
  compress(plain: Uint8Array, level?: number): Uint8Array;
  /**
   * Exactly `length` bytes, else it throws. In `into`, where it is given and large enough: good until that is used
   * again, and not a word of what lies behind them.
   */
  decompress(frame: Uint8Array, length: number, into?: Uint8Array): Uint8Array;
}

/** The inside of the runtime's (de)compressor, as far as it is the same in all versions that have one. */
interface RawStream {
  readonly _handle?: {
    /** Begins anew: whatever was left of the last frame is forgotten. */
    reset?(): void;
    writeSync?(
      flush: number,
      input: Uint8Array,
      inputStart: number,
      inputLength: number,
      output: Uint8Array,
      outputStart: number,
      outputLength: number,
    ): void;
  };
  /** Output and input that were left by the last write. */
  readonly _writeState?: Uint32Array;
}

/** Plain bytes up to here go through contexts that are kept: beyond, their making is a small part of the work. */
const KEPT_LIMIT_BYTES = 1024 * 1024;

function levelOption(level: number) {
  const { ZSTD_c_compressionLevel, ZSTD_c_hashLog } = zlib.constants;
  const fast = level === FAST_LEVEL ? { [ZSTD_c_hashLog]: FAST_HASH_LOG } : {};
  return { params: { [ZSTD_c_compressionLevel]: level, ...fast } };
}

/**
 * Compresses with one kept context for each level: making one costs more than compressing a small file. Null where the
 * runtime has another inside, or the frame did not come out whole; the public call does it then.
 */
class KeptCompressors {
  readonly #compressors = new Map<number, RawStream>();
  readonly #frame = new Uint8Array(KEPT_LIMIT_BYTES + 16 * 1024);

  compress(plain: Uint8Array, level: number): Uint8Array | null {
    if (plain.length > KEPT_LIMIT_BYTES) return null;
    let compressor = this.#compressors.get(level);
    if (compressor === undefined) {
      compressor = zlib.createZstdCompress(levelOption(level)) as unknown as RawStream;
      this.#compressors.set(level, compressor);
    }
    const { _handle: handle, _writeState: left } = compressor;
    if (handle?.writeSync === undefined || left === undefined) return null;
    const frame = this.#frame;
    handle.writeSync(zlib.constants.ZSTD_e_end, plain, 0, plain.length, frame, 0, frame.length);
    const [outputLeft = 0, inputLeft = 0] = left;
    if (outputLeft > 0 && inputLeft === 0) return frame.subarray(0, frame.length - outputLeft);
    this.#compressors.delete(level); // what it still holds must not begin the next frame
    return null;
  }
}

/** Exactly `length` bytes: the beginning of `into`, where it is given and large enough. */
function placeFor(length: number, into?: Uint8Array): Uint8Array {
  return into !== undefined && into.length >= length ? into.subarray(0, length) : new Uint8Array(length);
}

/**
 * Decompresses with one kept context: making one costs five times what a small frame does. Null where the runtime has
 * another inside, or this is anything but one frame of exactly `length` bytes; the public call says then what it is.
 */
class KeptDecompressor {
  readonly #stream = zlib.createZstdDecompress() as unknown as RawStream;

  decompress(frame: Uint8Array, length: number, into?: Uint8Array): Uint8Array | null {
    const { _handle: handle, _writeState: left } = this.#stream;
    if (handle?.reset === undefined || handle.writeSync === undefined || left === undefined) return null;
    if (length > KEPT_LIMIT_BYTES) return null;
    const plain = placeFor(length, into);
    try {
      handle.reset();
      handle.writeSync(zlib.constants.ZSTD_e_end, frame, 0, frame.length, plain, 0, length);
    } catch {
      return null; // no frame: the public call has the better message
    }
    const [outputLeft, inputLeft] = left;
    return outputLeft === 0 && inputLeft === 0 ? plain : null;
  }
}

/** By libzstd. Null where this is not a frame of exactly `length` bytes; the public call says then what it is. */
class LibraryDecompressor {
  readonly #decompress: NativeZstd;

  constructor(decompress: NativeZstd) {
    this.#decompress = decompress;
  }

  decompress(frame: Uint8Array, length: number, into?: Uint8Array): Uint8Array | null {
    const plain = placeFor(length, into);
    return this.#decompress(frame, plain) === length ? plain : null;
  }
}

/** Undefined where a kept context does not give what the public call gives, damaged frames between good ones included. */
function keptDecompressor(): KeptDecompressor | undefined {
  try {
    const kept = new KeptDecompressor();
    for (const length of [1, 1000, 70_000]) {
      const plain = new Uint8Array(length).fill(length % 251);
      const frame = zlib.zstdCompressSync(plain, levelOption(FAST_LEVEL));
      const cut = kept.decompress(frame.subarray(0, frame.length - 1), length + 1);
      const whole = kept.decompress(frame, length);
      if (cut !== null || whole === null || !Buffer.from(plain).equals(whole)) return undefined;
    }
    return kept;
  } catch {
    return undefined;
  }
}

/** Null where kept contexts do not make the frames that they should. */
function keptCompressors(): KeptCompressors | null {
  try {
    const kept = new KeptCompressors();
    for (const length of [1, 1000, 0, 70_000]) {
      const plain = new Uint8Array(length).fill(length % 251);
      const frame = kept.compress(plain, FAST_LEVEL);
      if (frame === null || !zlib.zstdDecompressSync(frame).equals(plain)) return null;
    }
    return kept;
  } catch {
    return null;
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Buffer): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** `library` null: by the runtime alone. */
function nativeCodec(library: NativeZstd | null): Codec | undefined {
  /** Undefined: not asked for yet. A restore never does, and to prove them is a part of its start. */
  let kept: KeptCompressors | null | undefined;
  const keptInverse = library === null ? keptDecompressor() : new LibraryDecompressor(library);
  const codec: Codec = {
    engine: "native",
    compress(plain, level = FAST_LEVEL) {
      if (kept === undefined) kept = keptCompressors();
      return kept?.compress(plain, level) ?? zlib.zstdCompressSync(plain, levelOption(level));
    },
    decompress: (frame, length, into) =>
      keptInverse?.decompress(frame, length, into) ??
        bytesOf(zlib.zstdDecompressSync(frame, { maxOutputLength: Math.max(1, length) })),
  };
  try {
    // Some versions export the names and throw at the call; only a call tells.
    const probe = new Uint8Array(1000);
    const frame = zlib.zstdCompressSync(probe, levelOption(FAST_LEVEL));
    return codec.decompress(frame, probe.length).length === probe.length ? codec : undefined;
  } catch {
    return undefined;
  }
}

/** Length of the content as the frame's header declares it, null when it does not (RFC 8878, 3.1.1). */
export function declaredLength(frame: Uint8Array): number | null {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const descriptor = view.getUint8(4);
  const single = (descriptor & 0x20) !== 0;
  const size = descriptor >> 6;
  const at = 5 + (single ? 0 : 1) + ([0, 1, 2, 4][descriptor & 3] ?? 0);
  if (size === 0) return single ? view.getUint8(at) : null;
  if (size === 1) return view.getUint16(at, true) + 256;
  if (size === 2) return view.getUint32(at, true);
  return Number(view.getBigUint64(at, true));
}

async function wasmCodec(): Promise<Codec> {
  const zstd = await import("@bokuweb/zstd-wasm");
  await zstd.init();
  return {
    engine: "wasm",
    compress: (plain, level = FAST_LEVEL) => zstd.compress(plain, level),
    decompress(frame, length) {
      // This engine allocates what the frame declares, so the declaration is checked first.
      const declared = declaredLength(frame);
      if (declared !== null && declared !== length) throw new Error(`frame declares ${declared} bytes`);
      return zstd.decompress(frame, { defaultHeapSize: Math.max(1, length) });
    },
  };
}

let shared: Promise<Codec> | undefined;

/** The codec of this process; probed once. */
export function loadCodec(): Promise<Codec> {
  shared ??= Promise.resolve(nativeCodec(nativeZstd())).then((codec) => codec ?? wasmCodec());
  return shared;
}

/** Only for tests: as it is where the system has no libzstd. */
export function loadRuntimeCodec(): Codec {
  const codec = nativeCodec(null);
  assert(codec !== undefined, "the runtime has zstd");
  return codec;
}

/** Only for tests that compare the two engines. */
export function loadWasmCodec(): Promise<Codec> {
  return wasmCodec();
}

export interface EncodedBytes {
  readonly bytes: Uint8Array;
  readonly compressed: boolean;
}

/** `level` null: as it is. The bytes are `plain` itself, or good until the next call. */
export function encodeBytes(
  codec: Codec,
  plain: Uint8Array,
  level: number | null = FAST_LEVEL,
): EncodedBytes {
  if (level === null || plain.length < SMALLEST_COMPRESSED_BYTES) return { bytes: plain, compressed: false };
  const isSmall = level === FAST_LEVEL && plain.length <= SMALL_BYTES;
  const frame = codec.compress(plain, isSmall ? SMALL_LEVEL : level);
  if (frame.length >= plain.length * RAW_FROM_SHARE) return { bytes: plain, compressed: false };
  return { bytes: frame, compressed: true };
}

/** The plain bytes, unpacked to `into` where that is given; `data-damaged` that names `object` unless they are exactly `length` long. */
export function decodeBytes(
  codec: Codec,
  stored: EncodedBytes,
  length: number,
  object: string | (() => string),
  into?: Uint8Array,
): Uint8Array {
  const name = () => typeof object === "string" ? object : object();
  let plain: Uint8Array;
  try {
    plain = stored.compressed ? codec.decompress(stored.bytes, length, into) : stored.bytes;
  } catch (error) {
    throw damaged(name(), `not a zstd frame of ${length} bytes`, error);
  }
  if (plain.length !== length) throw damaged(name(), `${plain.length} bytes, ${length} were declared`);
  return plain;
}

/** The error of every decoder here: `object` is the key, with the place inside it where there is one. */
export function damaged(object: string, what: string, cause?: unknown): StateManagerError {
  return new StateManagerError("data-damaged", `read ${object}: ${what}`, {
    hint:
      "the object was changed or cut after it was written: restore an older checkpoint, or bring the object back",
    ...(cause === undefined ? {} : { cause }),
  });
}
