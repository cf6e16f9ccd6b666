/** The store's contract over S3: the test service that checks signatures, with and without faults, and MinIO. */

import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import {
  type ObjectStore,
  openStore,
  type OpenStoreOptions,
  retrying,
  s3Store,
} from "../../src/storage/mod.ts";
import { findMinio, type Minio, startMinio } from "../support/minio.ts";
import { S3Server, type S3ServerOptions } from "../support/s3_server.ts";
import { testObjectStore } from "./object_store_contract.ts";

const effects = { clock: systemClock(), random: systemRandom() };

interface Service {
  readonly endpoint: string;
  readonly bucket: string;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken?: string | null;
}

function optionsFor(service: Service): Extract<OpenStoreOptions, { kind: "s3" }> {
  const { endpoint, bucket, accessKey, secretKey, sessionToken } = service;
  return {
    kind: "s3",
    bucket,
    endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: () => ({
      accessKey: new Secret(accessKey),
      secretKey: new Secret(secretKey),
      sessionToken: typeof sessionToken === "string" ? new Secret(sessionToken) : null,
    }),
  };
}

function onServer(
  options: S3ServerOptions,
  open: (server: S3Server) => ObjectStore,
) {
  return async () => {
    const server = await S3Server.start(options);
    return { store: open(server), finish: () => server.stop() };
  };
}

testObjectStore({
  name: "s3 store",
  open: onServer({}, (server) => s3Store({ ...optionsFor(server), clock: effects.clock })),
});

testObjectStore({
  name: "s3 store with a session token, in the whole stack, under a prefix",
  open: onServer(
    { sessionToken: "session/token+1==" },
    (server) => openStore({ ...optionsFor(server), keyPrefix: "team/app" }, effects),
  ),
});

// One request in five is refused, or cut off before or after the work: with retries the contract holds all the same.
testObjectStore({
  name: "s3 store with retries over a service that fails",
  open: onServer({}, (server) => {
    const faults = [
      { status: 503, code: "SlowDown" },
      { reset: true },
      { reset: true, when: "after" },
      { status: 500, when: "after" },
      { status: 429, code: "TooManyRequests" },
    ] as const;
    for (const fault of faults) server.fail({ ...fault, probability: 0.04 });
    return retrying(s3Store({ ...optionsFor(server), clock: effects.clock }), {
      ...effects,
      baseDelayMs: 1,
      attempts: 20,
    });
  }),
});

let prefixCount = 0;
/** One MinIO for the whole file: it takes a second to start. */
let minio: Minio | null = null;

Deno.test.beforeAll(async () => {
  minio = await startMinio();
});

Deno.test.afterAll(async () => {
  await minio?.stop();
});

testObjectStore({
  name: "s3 store on MinIO [needs minio]",
  ignore: findMinio() === null,
  open() {
    if (minio === null) throw new Error("MinIO was found before and does not start now");
    const keyPrefix = `contract/${++prefixCount}`;
    return Promise.resolve({
      store: openStore({ ...optionsFor(minio), keyPrefix }, effects),
      finish: () => Promise.resolve(),
    });
  },
});
