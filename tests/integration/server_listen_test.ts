import assert from "node:assert/strict";
import { StateManagerError } from "../../src/platform/errors.ts";
import { httpOverSocket } from "../../src/platform/control_http.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { listenTcp } from "../../src/platform/http_server.ts";
import { IdleConnections } from "../../src/platform/idle_connections.ts";
import { findSocketPath, prepareSocketPath } from "../../src/platform/socket_file.ts";
import { checkpointResult } from "../support/fake_control.ts";
import { serveControl } from "../support/served_control.ts";

const clock = systemClock();
const listening = { clock, onLost: (error: unknown) => assert.fail(`listener lost: ${error}`) };

async function scratch(): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir({ prefix: "sm-listen-" });
  return {
    path,
    [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }),
  };
}

/** `curl`'s first line: the status of a request over a unix socket. */
async function statusOverSocket(path: string): Promise<number> {
  const http = httpOverSocket(path);
  try {
    const response = await http.fetch("/livez");
    await response.body?.cancel();
    return response.status;
  } finally {
    http.close();
  }
}

Deno.test("the server answers on TCP and on a unix socket of mode 0600, and leaves nothing behind", async () => {
  await using served = await serveControl();
  assert.match(served.url, /^http:\/\/127\.0\.0\.1:\d+$/);
  assert.equal((await (await fetch(served.url)).json()).state, "running");
  const socket = `${served.dataDir}/control.sock`;
  assert.equal(served.server.socketPath, socket);
  assert.equal(((await Deno.stat(socket)).mode ?? 0) & 0o777, 0o600);
  assert.equal(await statusOverSocket(socket), 200);
  await served.server.stop(2000);
  await assert.rejects(Deno.stat(socket), Deno.errors.NotFound);
  await assert.rejects(fetch(served.url));
});

Deno.test("a socket path too long for the kernel moves, and the data folder says where", async () => {
  await using folder = await scratch();
  await using runtime = await scratch();
  const dataDir = `${folder.path}/${"d".repeat(120)}`;
  await Deno.mkdir(dataDir);
  const path = await prepareSocketPath({
    dataDir,
    wanted: null,
    runtimeDir: runtime.path,
  });
  assert.ok(path.startsWith(`${runtime.path}/`) && path.length <= 107, path);
  assert.equal(await findSocketPath(dataDir), path);
  const fallback = await prepareSocketPath({
    dataDir,
    wanted: null,
    runtimeDir: null,
  });
  assert.match(
    fallback,
    /^\/tmp\/state-manager-\d+\/state-manager-[0-9a-f]{16}\.sock$/,
  );
  assert.equal(
    ((await Deno.stat(fallback.slice(0, fallback.lastIndexOf("/")))).mode ??
      0) & 0o777,
    0o700,
  );
  await Deno.remove(fallback.slice(0, fallback.lastIndexOf("/"))).catch(() => {}); // in use by others: not ours to remove
  const chosen = `${folder.path}/own.sock`;
  assert.equal(await prepareSocketPath({ dataDir, wanted: chosen }), chosen);
  assert.equal(await findSocketPath(dataDir), chosen);
});

Deno.test("a stale socket is replaced, a living one and any other file are not", async () => {
  await using folder = await scratch();
  const path = `${folder.path}/control.sock`;
  const place = { dataDir: folder.path, wanted: null };
  const leave = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      `Deno.listen({ transport: "unix", path: ${JSON.stringify(path)} }); Deno.kill(Deno.pid, "SIGKILL")`,
    ],
  });
  await leave.output();
  assert.ok((await Deno.lstat(path)).isSocket);
  assert.equal(await prepareSocketPath(place), path);
  await assert.rejects(Deno.lstat(path), Deno.errors.NotFound);

  const living = Deno.listen({ transport: "unix", path });
  await assert.rejects(prepareSocketPath(place), {
    code: "config-invalid",
    message: /another program answers/,
  });
  living.close(); // removes the file, too

  await Deno.writeTextFile(path, "precious");
  await assert.rejects(prepareSocketPath(place), {
    code: "config-invalid",
    message: /no socket/,
  });
  assert.equal(await Deno.readTextFile(path), "precious");
});

Deno.test("an address in use is a configuration error with a hint", async () => {
  await using served = await serveControl();
  const port = Number(new URL(served.url).port);
  await assert.rejects(
    serveControl({}, { listen: { hostname: "127.0.0.1", port } }),
    (error: unknown) =>
      error instanceof StateManagerError && error.meaning.exit === 78 &&
      error.hint !== undefined,
  );
  await assert.rejects(
    serveControl({}, { listen: { hostname: "203.0.113.7", port: 0 } }),
    { code: "config-invalid" },
  );
  const tls = { certFile: "/no/such.pem", keyFile: "/no/such.key" };
  await assert.rejects(serveControl({}, { tls }), {
    code: "config-invalid",
    message: /no file/,
  });
});

Deno.test("only a loopback listener is open without tokens", async () => {
  await using served = await serveControl({}, {
    listen: { hostname: "0.0.0.0", port: 0 },
  });
  const url = `http://127.0.0.1:${served.server.port}`;
  const refused = await fetch(url);
  assert.equal(refused.status, 401);
  await refused.body?.cancel();
  assert.equal(await statusOverSocket(served.server.socketPath ?? ""), 200);
});

Deno.test("a checkpoint streams its progress as events and as lines, and ends with the result", async () => {
  await using served = await serveControl({
    checkpoint: (_request, work) => {
      const progress = {
        phase: "read",
        entries: 1,
        bytes: 2,
        totalBytes: 4,
      } as const;
      work?.onProgress?.(progress);
      work?.onCaptured?.("01kgcaptured");
      return Promise.resolve(checkpointResult());
    },
  });
  const ask = (accept: string) => fetch(`${served.url}/checkpoint`, { method: "POST", headers: { accept } });
  const lines = await ask("application/x-ndjson");
  assert.equal(lines.headers.get("content-type"), "application/x-ndjson");
  const events = (await lines.text()).trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.equal(events.at(-1).type, "complete");
  assert.equal(events.at(-1).checkpoint.n, 4);
  assert.ok(events.every((event) => typeof event.time === "string"));
  const text = await (await ask("text/event-stream")).text();
  assert.match(text, /event: complete\ndata: \{.*"n":4.*\}\n\n$/);
});

Deno.test("a stream tells a late failure as its last event, an early one as a problem document", async () => {
  let delay = Promise.withResolvers<void>();
  await using served = await serveControl({
    checkpoint: async (_request, work) => {
      work?.onProgress?.({
        phase: "scan",
        entries: 0,
        bytes: 0,
        totalBytes: null,
      });
      await delay.promise;
      throw new StateManagerError("store-unreachable", "put: no answer");
    },
    restore: () =>
      Promise.reject(
        new StateManagerError("busy", "restore: a checkpoint is under way"),
      ),
  });
  const headers = {
    accept: "application/x-ndjson",
    "content-type": "application/json",
  };
  const late = await fetch(`${served.url}/checkpoint`, {
    method: "POST",
    headers,
  });
  assert.equal(late.status, 200);
  delay.resolve();
  const last = JSON.parse(
    (await late.text()).trimEnd().split("\n").at(-1) ?? "",
  );
  assert.deepEqual([last.type, last.problem.code, last.problem.status], [
    "error",
    "store-unreachable",
    503,
  ]);
  delay = Promise.withResolvers();
  const early = await fetch(`${served.url}/restore`, {
    method: "POST",
    headers,
    body: '{"checkpoint":"v1"}',
  });
  assert.equal(early.status, 409);
  await early.body?.cancel();
});

Deno.test("a client that goes away does not end the checkpoint", async () => {
  const gate = Promise.withResolvers<void>();
  let aborted: boolean | undefined;
  let begun = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  await using served = await serveControl({
    checkpoint: async (_request, work) => {
      begun.resolve();
      work?.onProgress?.({
        phase: "scan",
        entries: 0,
        bytes: 0,
        totalBytes: null,
      });
      await gate.promise;
      aborted = work?.signal?.aborted;
      ended.resolve();
      return checkpointResult();
    },
  });
  for (const accept of ["application/x-ndjson", "application/json"]) {
    const going = new AbortController();
    const asked = fetch(`${served.url}/checkpoint`, {
      method: "POST",
      headers: { accept },
      signal: going.signal,
    });
    if (accept === "application/json") await begun.promise;
    else await asked;
    begun = Promise.withResolvers();
    going.abort();
    await asked.catch(() => {});
  }
  gate.resolve();
  await ended.promise;
  assert.notEqual(aborted, true);
});

Deno.test("stop ends open streams first and never waits longer than it may", async () => {
  const never = new Promise<never>(() => {});
  await using served = await serveControl({
    checkpoint: (_request, work) => {
      work?.onProgress?.({
        phase: "scan",
        entries: 0,
        bytes: 0,
        totalBytes: null,
      });
      return never;
    },
  });
  const stream = await fetch(`${served.url}/checkpoint`, {
    method: "POST",
    headers: { accept: "text/event-stream" },
  });
  const begin = performance.now();
  await served.server.stop(60_000);
  assert.ok(
    performance.now() - begin < 30_000,
    "an open stream must not hold up the stop",
  );
  await stream.text().catch(() => {});
});

Deno.test("stop gives up on a request that does not end", async () => {
  const gate = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  await using served = await serveControl({
    checkpoint: () => {
      asked.resolve();
      return gate.promise.then(() => checkpointResult());
    },
  });
  const hanging = fetch(`${served.url}/checkpoint`, { method: "POST" });
  hanging.catch(() => {});
  await asked.promise;
  const begin = performance.now();
  await served.server.stop(300);
  const took = performance.now() - begin;
  assert.ok(took >= 290 && took < 30_000, `${took} ms`);
  gate.resolve();
  await (await hanging).body?.cancel();
});

/** A raw connection that sends `text`; resolves with how long it took until the server ended it. */
async function endedAfter(port: number, text: string): Promise<number> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const begin = performance.now();
  try {
    await connection.write(new TextEncoder().encode(text));
    const buffer = new Uint8Array(1024);
    while (await connection.read(buffer) !== null);
  } catch {
    // a reset is an end, too
  } finally {
    connection.close();
  }
  return performance.now() - begin;
}

Deno.test("connections that ask nothing are ended, those with a request under way are not", async () => {
  const watched = new AbortController();
  const observer = new IdleConnections({
    clock,
    idleMs: 300,
    periodMs: 50,
  });
  const handler = async (request: Request) => {
    if (new URL(request.url).pathname === "/slow") {
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    return new Response("done");
  };
  const listener = listenTcp({
    hostname: "127.0.0.1",
    port: 0,
    tls: null,
    handler,
    observer,
    ...listening,
  });
  const port = listener.port ?? 0;
  const watching = observer.watch(port, watched.signal);
  const [silent, half, slow] = await Promise.all([
    endedAfter(port, "GET"),
    endedAfter(port, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Half: "),
    fetch(`http://127.0.0.1:${port}/slow`).then((response) => response.text()),
  ]);
  assert.ok(silent < 60_000 && half < 60_000, `${silent} ms, ${half} ms`);
  assert.equal(slow, "done");
  watched.abort();
  await watching;
  await listener.shutdown();
});

Deno.test("above the limit the longest quiet connections go at once", async () => {
  const watched = new AbortController();
  const observer = new IdleConnections({
    clock,
    idleMs: 60_000,
    periodMs: 50,
    maxConnections: 20,
  });
  const listener = listenTcp({
    hostname: "127.0.0.1",
    port: 0,
    tls: null,
    handler: () => new Response("ok"),
    observer,
    ...listening,
  });
  const port = listener.port ?? 0;
  const watching = observer.watch(port, watched.signal);
  const connections = await Promise.all(
    Array.from(
      { length: 60 },
      () => Deno.connect({ hostname: "127.0.0.1", port }),
    ),
  );
  let ended = 0;
  const readers = connections.map(async (connection) => {
    await connection.read(new Uint8Array(1)).catch(() => null);
    ended++;
  });
  const deadline = performance.now() + 60_000;
  while (ended < 40 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(ended, 40);
  assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "ok");
  for (const connection of connections) connection.close();
  await Promise.all(readers);
  watched.abort();
  await watching;
  await listener.shutdown();
});

Deno.test("huge headers and a flood of requests leave the server answering", async () => {
  await using served = await serveControl();
  const port = Number(new URL(served.url).port);
  await endedAfter(
    port,
    `GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: ${"a".repeat(2_000_000)}\r\n\r\n`,
  );
  const many = Array.from(
    { length: 400 },
    () => fetch(`${served.url}/checkpoints`).then((response) => response.body?.cancel()),
  );
  await Promise.all(many);
  assert.equal(await (await fetch(`${served.url}/livez`)).text(), "ok\n");
});
