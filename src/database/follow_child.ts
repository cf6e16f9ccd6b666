/**
 * The follower process: the hidden subcommand `__follow`, a child of the manager that follows all databases of a term.
 * The manager itself never opens a database that an application uses: SQLite's locks belong to the process. It may be
 * killed at any moment; its local files and the store say where the next one goes on. It ends when its stdin closes.
 */

import { buildInfo } from "../platform/build_info.ts";
import { systemClock } from "../platform/clock.ts";
import { asStateManagerError } from "../platform/errors.ts";
import { keepHeapSmall } from "../platform/heap.ts";
import { promptFiles } from "../platform/local_files.ts";
import { exitNow, openParentPipe, type ParentPipe } from "../platform/parent_pipe.ts";
import { systemRandom } from "../platform/random.ts";
import { keepAliveOnErrors } from "../platform/self.ts";
import { errorToWire } from "../platform/wire_error.ts";
import {
  credentialsFromWire,
  limited,
  openStore,
  type OpenStoreOptions,
  type S3Credentials,
} from "../storage/mod.ts";
import { FollowFleet } from "./follow_fleet.ts";
import { FollowParts } from "./follow_parts.ts";
import { Places } from "./follow_places.ts";
import {
  FOLLOW_LINE_LIMIT_BYTES,
  FOLLOW_PROTOCOL,
  type FollowCommand,
  type FollowReply,
  type FollowRequest,
} from "./follow_protocol.ts";
import { layoutOf } from "./replica_layout.ts";
import { SendWindow } from "./replica_window.ts";

/** Commits on their way at once, of all databases: enough for a line of 100 ms, few enough for a small store. */
const UPLOADS = 8;
/** Large files in memory at once: at most 32 MiB each. */
const LARGE_UPLOADS = 2;
/** A compaction is CPU work on the one thread that also captures. */
const COMPACTIONS = 1;

/** Runs until the manager goes away, which is a normal end. */
export async function followerMain(): Promise<number> {
  keepHeapSmall();
  const pipe = openParentPipe(FOLLOW_LINE_LIMIT_BYTES);
  // Whatever is said after the manager is gone is said to nobody.
  const send = (line: FollowReply) => void pipe.send(line).catch(() => exitNow(0));
  // Said before all else, also where the manager is gone already and this ends at once.
  await pipe.send({ type: "hello", protocol: FOLLOW_PROTOCOL, build: buildInfo().build }).catch(() =>
    exitNow(0)
  );
  const first = await pipe.lines.next();
  if (first.done === true) return 0;
  const request: FollowRequest = JSON.parse(first.value);
  if (request.protocol !== FOLLOW_PROTOCOL) return 70; // the manager has seen it in our hello
  keepAliveOnErrors((error) => {
    const { message, hint } = asStateManagerError(error);
    const event = { level: "error", kind: "warning", name: null, message, hint: hint ?? null } as const;
    send({ type: "event", event });
  });
  const work = new FollowWork(request, send);
  work.start();
  await obey(pipe, work, send);
  // Nobody is left to tell, and the next one proves the positions: end at once, whatever is under way.
  exitNow(0);
}

async function obey(
  pipe: ParentPipe,
  work: FollowWork,
  send: (line: FollowReply) => void,
): Promise<void> {
  for (;;) {
    const { done, value } = await pipe.lines.next();
    if (done === true) return;
    const command: FollowCommand = JSON.parse(value);
    if ("id" in command) {
      const { id } = command;
      work.fleet.answer(command).then(
        (result) => send({ type: "answer", id, result, error: null }),
        (error) => send({ type: "answer", id, result: null, error: errorToWire(error) }),
      );
    } else work.obey(command);
  }
}

class FollowWork {
  readonly fleet: FollowFleet;
  readonly #request: FollowRequest;
  readonly #window: SendWindow;
  /** As told last; a folder store has none. */
  #credentials: S3Credentials = credentialsFromWire({ accessKey: "", secretKey: "", sessionToken: null });

  constructor(request: FollowRequest, send: (line: FollowReply) => void) {
    this.#request = request;
    const clock = systemClock();
    const random = systemRandom();
    this.#window = new SendWindow(clock, request.deadlineBootMs);
    const options = this.#storeOptions();
    const parts = new FollowParts({
      store: openStore(options, { clock, random }),
      plainStore: limited(openStore(options, { clock, random, plain: true }), {
        concurrency: UPLOADS,
        clock,
      }),
      layout: layoutOf(request.store),
      token: request.token,
      window: this.#window,
      clock,
      random,
      dataFolder: request.dataFolder,
      compactions: new Places(COMPACTIONS),
      onEvent: (event) => this.fleet.event(event),
      files: promptFiles,
    });
    this.fleet = new FollowFleet({
      parts,
      clock,
      uploads: new Places(LARGE_UPLOADS),
      folders: request.folders,
      removed: request.removed,
      behind: request.behind,
      send,
    });
  }

  start(): void {
    for (const database of this.#request.databases) this.fleet.add(database);
    void this.fleet.run();
  }

  obey(command: Exclude<FollowCommand, { readonly id: number }>): void {
    switch (command.type) {
      case "deadline":
        return this.#window.renew(command.bootMs);
      case "pins":
        return this.fleet.pins(command.pins, command.wanted);
      case "add":
        return this.fleet.add(command.database);
      case "credentials":
        this.#credentials = credentialsFromWire(command.credentials);
    }
  }

  #storeOptions(): OpenStoreOptions {
    const { store } = this.#request;
    if (store.kind === "directory") return store;
    const { accessKey, secretKey, sessionToken, ...rest } = store;
    this.#credentials = credentialsFromWire({ accessKey, secretKey, sessionToken });
    return { ...rest, credentials: () => this.#credentials };
  }
}
