/** A plain connection to a TCP port, with an end to everything: connecting, asking and reading. */

/** Connects and closes. Rejects with the system's error, or with the signal's reason. */
export async function tryConnect(host: string, port: number, signal: AbortSignal): Promise<void> {
  (await connect(host, port, signal)).close();
}

/**
 * Sends `request` and gives the first bytes of the answer, at least up to the first newline where there is one within
 * `limitBytes`. The rest is not read.
 */
export async function askLine(options: {
  readonly host: string;
  readonly port: number;
  readonly request: Uint8Array<ArrayBuffer>;
  readonly limitBytes: number;
  readonly signal: AbortSignal;
}): Promise<Uint8Array<ArrayBuffer>> {
  const { host, port, request, limitBytes, signal } = options;
  const connection = await connect(host, port, signal);
  const close = () => closeQuietly(connection);
  signal.addEventListener("abort", close, { once: true });
  try {
    for (let sent = 0; sent < request.length;) sent += await connection.write(request.subarray(sent));
    const answer = new Uint8Array(limitBytes);
    let length = 0;
    while (length < limitBytes && !answer.subarray(0, length).includes(10)) {
      const count = await connection.read(answer.subarray(length));
      if (count === null) break;
      length += count;
    }
    return answer.slice(0, length);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", close);
    close();
  }
}

async function connect(hostname: string, port: number, signal: AbortSignal): Promise<Deno.TcpConn> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  const connecting = Deno.connect({ hostname, port });
  try {
    return await Promise.race([connecting, aborted.promise]);
  } catch (error) {
    // One that succeeds too late must not stay open.
    connecting.then(closeQuietly, () => {});
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
    aborted.promise.catch(() => {});
  }
}

function closeQuietly(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // closed already
  }
}
