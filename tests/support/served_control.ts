/** The real server over a fake manager, on a unix socket in a scratch data folder, and on TCP where wanted. */

import type { Control } from "../../src/manager/control.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { createApp, type RunningServer, type ServerOptions, startServer } from "../../src/server/mod.ts";
import { fakeControl, recordingLog } from "./fake_control.ts";

const clock = systemClock();

export interface ServedControl extends AsyncDisposable {
  readonly server: RunningServer;
  readonly dataDir: string;
  readonly url: string;
}

export async function serveControl(
  change: Partial<Control> = {},
  options: Partial<ServerOptions> = {},
): Promise<ServedControl> {
  const dataDir = await Deno.makeTempDir({ prefix: "sm-server-" });
  const app = createApp({
    control: fakeControl(change),
    clock,
    random: systemRandom(),
    log: recordingLog().log,
  });
  try {
    const server = await startServer({
      app,
      clock,
      listen: { hostname: "127.0.0.1", port: 0 },
      tls: null,
      socket: { path: null, dataDir },
      ...options,
    });
    return {
      server,
      dataDir,
      url: server.urls[0] ?? "",
      async [Symbol.asyncDispose]() {
        await server.stop(2000);
        await Deno.remove(dataDir, { recursive: true });
      },
    };
  } catch (error) {
    await Deno.remove(dataDir, { recursive: true });
    throw error;
  }
}
