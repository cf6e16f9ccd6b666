/**
 * SHA-256, HMAC-SHA-256 and AES-256-GCM of OpenSSL 3 (libcrypto), where the system has it: synchronous, with the
 * processor's own instructions. The runtime's AES-GCM takes twenty times as long, and its hashes cost more to begin than
 * a small file takes to hash. Whoever asks must be able to do without: not every image has the library. For children of
 * the manager and their Workers; the manager itself hashes little and stays small.
 */

import { StateManagerError } from "./errors.ts";

const SYMBOLS = {
  OPENSSL_init_crypto: { parameters: ["u64", "pointer"], result: "i32" },
  EVP_sha256: { parameters: [], result: "pointer" },
  EVP_aes_256_gcm: { parameters: [], result: "pointer" },
  EVP_MD_CTX_new: { parameters: [], result: "pointer" },
  EVP_DigestInit_ex: { parameters: ["pointer", "pointer", "pointer"], result: "i32" },
  EVP_DigestUpdate: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
  EVP_DigestFinal_ex: { parameters: ["pointer", "buffer", "pointer"], result: "i32" },
  HMAC_CTX_new: { parameters: [], result: "pointer" },
  HMAC_Init_ex: { parameters: ["pointer", "buffer", "i32", "pointer", "pointer"], result: "i32" },
  HMAC_Update: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
  HMAC_Final: { parameters: ["pointer", "buffer", "pointer"], result: "i32" },
  EVP_CIPHER_CTX_new: { parameters: [], result: "pointer" },
  EVP_CipherInit_ex: {
    parameters: ["pointer", "pointer", "pointer", "buffer", "buffer", "i32"],
    result: "i32",
  },
  EVP_CipherUpdate: { parameters: ["pointer", "buffer", "buffer", "buffer", "i32"], result: "i32" },
  EVP_CipherFinal_ex: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  EVP_CIPHER_CTX_ctrl: { parameters: ["pointer", "i32", "i32", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** No handler at exit, which would take the tables away under threads that still run; no configuration file. */
const INIT_NO_ATEXIT = 0x80000n;
const INIT_NO_CONFIG = 0x80n;

const DIGEST_BYTES = 32;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const CTRL_GET_TAG = 0x10;
const CTRL_SET_TAG = 0x11;
const DECRYPT = 0;
const ENCRYPT = 1;

/** One use of AES-256-GCM: a key of 32 bytes, a nonce of 12, and what is proven along with the content. */
export interface GcmUse {
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
  readonly about: Uint8Array;
}

/** The 32 bytes in `into`, where it is given: memory of its own for each costs as much as the hash of a small file. */
export type Digest = (bytes: Uint8Array, into?: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>;

export interface NativeCrypto {
  sha256: Digest;
  /** HMAC-SHA-256 with this key, as often as is wanted. The key stays in the library's memory for good. */
  hmacSha256(key: Uint8Array): Digest;
  /** Ciphertext and a tag of 16 bytes to the beginning of `target`, which may not overlap `plain`. */
  seal(use: GcmUse, plain: Uint8Array, target: Uint8Array): void;
  /**
   * The plain bytes; null unless `sealed`, with its tag at the end, was made by `seal` with the same use. In the place of
   * `sealed`, whose bytes are gone then, where `inPlace` says so: memory of its own for each costs as much as unsealing.
   */
  unseal(use: GcmUse, sealed: Uint8Array, inPlace?: boolean): Uint8Array<ArrayBuffer> | null;
}

/** What FFI takes is the same memory, whatever its type says of being shared. */
type Bytes = Uint8Array<ArrayBuffer>;

function openLibrary() {
  const library = Deno.dlopen("libcrypto.so.3", SYMBOLS).symbols;
  succeeded(library.OPENSSL_init_crypto(INIT_NO_ATEXIT | INIT_NO_CONFIG, null), "start");
  return library;
}

type Library = ReturnType<typeof openLibrary>;

/** Every call answers 1 or has failed, which only a lack of memory explains. */
function succeeded(result: number, action: string): void {
  if (result === 1) return;
  throw new StateManagerError("internal", `libcrypto: ${action} answered ${result}, wanted 1`);
}

function made(context: Deno.PointerValue, what: string): NonNullable<Deno.PointerValue> {
  if (context === null) throw new StateManagerError("internal", `libcrypto: no ${what}`);
  return context;
}

function digestPlace(into = new Uint8Array(DIGEST_BYTES)): Uint8Array<ArrayBuffer> {
  if (into.length === DIGEST_BYTES) return into;
  throw new StateManagerError(
    "internal",
    `libcrypto: ${into.length} bytes for a hash, wanted ${DIGEST_BYTES}`,
  );
}

function sha256With(library: Library): Digest {
  const context = made(library.EVP_MD_CTX_new(), "digest");
  const algorithm = made(library.EVP_sha256(), "SHA-256");
  succeeded(library.EVP_DigestInit_ex(context, algorithm, null), "take SHA-256");
  return (bytes, into) => {
    const digest = digestPlace(into);
    // The one that was taken: it is looked up once more where it is named, which takes half as long as a small file.
    succeeded(library.EVP_DigestInit_ex(context, null, null), "begin SHA-256");
    succeeded(library.EVP_DigestUpdate(context, bytes as Bytes, BigInt(bytes.length)), "SHA-256");
    succeeded(library.EVP_DigestFinal_ex(context, digest, null), "end SHA-256");
    return digest;
  };
}

function hmacWith(library: Library): NativeCrypto["hmacSha256"] {
  const algorithm = made(library.EVP_sha256(), "SHA-256");
  return (key) => {
    const context = made(library.HMAC_CTX_new(), "HMAC");
    succeeded(
      library.HMAC_Init_ex(context, key as Bytes, key.length, algorithm, null),
      "take the HMAC's key",
    );
    return (bytes, into) => {
      const digest = digestPlace(into);
      succeeded(library.HMAC_Init_ex(context, null, 0, null, null), "begin HMAC");
      succeeded(library.HMAC_Update(context, bytes as Bytes, BigInt(bytes.length)), "HMAC");
      succeeded(library.HMAC_Final(context, digest, null), "end HMAC");
      return digest;
    };
  };
}

function gcmWith(library: Library): Pick<NativeCrypto, "seal" | "unseal"> {
  const context = made(library.EVP_CIPHER_CTX_new(), "cipher");
  succeeded(
    library.EVP_CipherInit_ex(context, made(library.EVP_aes_256_gcm(), "AES-256-GCM"), null, null, null, 1),
    "take AES-256-GCM",
  );
  const written = new Uint8Array(4);
  const begin = ({ key, nonce, about }: GcmUse, direction: number) => {
    if (key.length !== KEY_BYTES || nonce.length !== NONCE_BYTES) {
      throw new StateManagerError("internal", `libcrypto: a key of ${key.length} bytes, wanted ${KEY_BYTES}`);
    }
    succeeded(
      library.EVP_CipherInit_ex(context, null, null, key as Bytes, nonce as Bytes, direction),
      "take key and nonce",
    );
    succeeded(
      library.EVP_CipherUpdate(context, null, written, about as Bytes, about.length),
      "take what is proven along",
    );
  };
  const tag = new Uint8Array(TAG_BYTES);
  const rest = new Uint8Array(TAG_BYTES);
  return {
    seal(use, plain, target) {
      if (target.length < plain.length + TAG_BYTES) {
        throw new StateManagerError("internal", "libcrypto: no room for what is sealed");
      }
      begin(use, ENCRYPT);
      const result = library.EVP_CipherUpdate(
        context,
        target as Bytes,
        written,
        plain as Bytes,
        plain.length,
      );
      succeeded(result, "seal");
      succeeded(library.EVP_CipherFinal_ex(context, rest, written), "end the seal"); // in this mode nothing is left
      succeeded(library.EVP_CIPHER_CTX_ctrl(context, CTRL_GET_TAG, TAG_BYTES, tag), "give the tag");
      target.set(tag, plain.length);
    },
    unseal(use, sealed, inPlace = false) {
      const length = sealed.length - TAG_BYTES;
      if (length < 0) return null;
      begin(use, DECRYPT);
      const content = sealed.subarray(0, length) as Bytes;
      const plain = inPlace ? content : new Uint8Array(length);
      succeeded(library.EVP_CipherUpdate(context, plain, written, content, length), "unseal");
      tag.set(sealed.subarray(length));
      succeeded(library.EVP_CIPHER_CTX_ctrl(context, CTRL_SET_TAG, TAG_BYTES, tag), "take the tag");
      return library.EVP_CipherFinal_ex(context, rest, written) === 1 ? plain : null;
    },
  };
}

/** SHA-256 of nothing. Source: FIPS 180-4. */
const SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

let opened: NativeCrypto | null | undefined;

/** Of this thread; null where the system has no libcrypto that works. Asked once. */
export function nativeCrypto(): NativeCrypto | null {
  if (opened !== undefined) return opened;
  try {
    const library = openLibrary();
    const native = { sha256: sha256With(library), hmacSha256: hmacWith(library), ...gcmWith(library) };
    opened = native.sha256(new Uint8Array(0)).toHex() === SHA256_OF_NOTHING ? native : null;
  } catch {
    opened = null; // not there, an older one, or without an algorithm: the runtime's own does it
  }
  return opened;
}
