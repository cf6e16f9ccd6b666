/** The reading end of a pipe of ours as a stream. Nobody reads ahead: a program whose output is not read waits for it. */

import type { ReadyDescriptors } from "./ready_descriptors.ts";

/** For a reader that brings no buffer of its own. */
const CHUNK_BYTES = 16 * 1024;
/** What is there is read without a wait up to so much; then others have their turn. */
const TURN_BYTES = 512 * 1024;

/** For `lookAtPipe`. */
const looks = new WeakMap<ReadableStream, () => boolean>();

/**
 * Gives whoever waits for more of a stream of ours what has come meanwhile. True where something was there, or is on its
 * way to its reader; false where nothing is, and for any other stream.
 */
export function lookAtPipe(stream: ReadableStream): boolean {
  return looks.get(stream)?.() ?? false;
}

export interface PipeStream {
  /** Closes the descriptor at its end or when it is cancelled. */
  readonly stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Whoever waits for more gets at once what has come, or the end; nobody has to be woken for it. */
  look(): void;
}

export function pipeStream(
  descriptor: number,
  { ready, close }: { readonly ready: ReadyDescriptors; readonly close: (descriptor: number) => void },
): PipeStream {
  const pipe = ready.watch(descriptor);
  let isOpen = true;
  const end = () => {
    if (!isOpen) return;
    isOpen = false;
    pipe.release();
    close(descriptor);
  };
  let leftBytes = TURN_BYTES;
  /** Nobody gets anything before something comes. */
  let isWaiting = false;
  /** False: there was nothing yet. */
  const take = (controller: ReadableByteStreamController): boolean => {
    const request = controller.byobRequest;
    const view = request?.view;
    if (!isOpen || request === null || !(view instanceof Uint8Array)) return true;
    const size = pipe.read(view);
    if (size < 0) return false;
    leftBytes -= size;
    if (size === 0) {
      end();
      controller.close();
    }
    request.respond(size);
    return true;
  };
  const stream: ReadableStream<Uint8Array<ArrayBuffer>> = new ReadableStream({
    type: "bytes",
    autoAllocateChunkSize: CHUNK_BYTES,
    pull(controller) {
      if (leftBytes > 0 && take(controller)) return;
      return new Promise<void>((resolve) => {
        const wait = () => {
          isWaiting = true;
          pipe.arm(() => {
            isWaiting = false;
            leftBytes = TURN_BYTES;
            if (take(controller)) resolve();
            else wait();
          });
        };
        wait();
      });
    },
    cancel: end,
  });
  const look = () => pipe.act();
  looks.set(stream, () => {
    look();
    return !isWaiting && isOpen;
  });
  return { stream, look };
}
