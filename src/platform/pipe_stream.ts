/** The reading end of a pipe of ours as a stream. Nobody reads ahead: a program whose output is not read waits for it. */

import type { ReadyDescriptors } from "./ready_descriptors.ts";

/** For a reader that brings no buffer of its own. */
const CHUNK_BYTES = 16 * 1024;

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
  /** False: there was nothing yet. */
  const take = (controller: ReadableByteStreamController): boolean => {
    const request = controller.byobRequest;
    const view = request?.view;
    if (!isOpen || request === null || !(view instanceof Uint8Array)) return true;
    const size = pipe.read(view);
    if (size < 0) return false;
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
      return new Promise<void>((resolve) => {
        const wait = () => pipe.arm(() => take(controller) ? resolve() : wait());
        wait();
      });
    },
    cancel: end,
  });
  return { stream, look: () => pipe.act() };
}
