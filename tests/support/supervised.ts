/** A supervisor with real processes, its events and output kept; everything it started is gone when it is disposed. */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import type { ProcessInfo } from "../../src/platform/proc.ts";
import { isAlive, readProcesses, readStartVariable } from "../../src/platform/proc.ts";
import { randomHex, systemRandom } from "../../src/platform/random.ts";
import { Supervisor, type SupervisorOptions } from "../../src/supervisor/mod.ts";
import { piecesOf } from "../../src/supervisor/lines.ts";
import type { ProcessSpec, ProcessStatus, SupervisorEvent } from "../../src/supervisor/mod.ts";

/** No condition here takes longer on a loaded machine; a test that waits this long has failed. */
const PATIENCE_MS = 60_000;

/** Opened once: it holds libc open for good, which a test's own check would take for a leak. */
const clock = systemClock();

export async function until(
  condition: () => boolean | null,
  what: string,
): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!condition()) {
    assert.ok(performance.now() < deadline, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export class Supervised implements AsyncDisposable {
  readonly clock = clock;
  /** Of this supervisor alone: others' tests may run on the same machine. */
  readonly runId = randomHex(systemRandom(), 8);
  readonly events: SupervisorEvent[] = [];
  readonly output: {
    readonly name: string;
    readonly stream: string;
    readonly text: Uint8Array;
    readonly partial: boolean;
  }[] = [];
  readonly supervisor: Supervisor;

  /** Options of the supervisor may come before the specs. */
  constructor(
    ...given: (ProcessSpec | Pick<SupervisorOptions, "heldDown" | "notifyFolder" | "oomKills">)[]
  ) {
    const specs = given.filter((each): each is ProcessSpec => "command" in each);
    this.supervisor = new Supervisor({
      ...given.find((each) => !("command" in each)),
      specs,
      clock: this.clock,
      random: systemRandom(),
      runId: this.runId,
      output: (name, batch) => {
        for (const { text, partial } of piecesOf(batch)) {
          this.output.push({ name, stream: batch.stream, text: text.slice(), partial });
        }
        return null;
      },
      onEvent: (event) => this.events.push(event),
    });
  }

  start(): this {
    this.supervisor.start();
    return this;
  }

  /** Stops within `ms`; returns how long it took. */
  async stop(ms: number): Promise<number> {
    const startMs = this.clock.monotonicMs();
    await this.supervisor.stop({ deadlineMonotonicMs: startMs + ms });
    return this.clock.monotonicMs() - startMs;
  }

  status(name: string): ProcessStatus {
    const status = this.supervisor.status().find((process) => process.name === name);
    assert.ok(status, `no process ${name}`);
    return status;
  }

  async untilState(name: string, state: ProcessStatus["state"]): Promise<void> {
    await until(() => this.status(name).state === state, `${name} ${state}`);
  }

  /** Lines of stdout of one process so far. */
  lines(name: string): string[] {
    return this.output.filter((line) => line.name === name).map(({ text }) => new TextDecoder().decode(text));
  }

  async untilLine(name: string, text: string): Promise<void> {
    await until(
      () => this.lines(name).includes(text),
      `${name} to say ${text}`,
    );
  }

  /** What still runs of the process `name`, by the tag of its environment. */
  alive(name: string): ProcessInfo[] {
    return readProcesses().filter(isAlive)
      .filter((info) => {
        const tag = readStartVariable(info.pid, "SM_UNIT");
        return tag?.startsWith(`${name}.`) && tag.endsWith(`.${this.runId}`);
      });
  }

  names<T extends SupervisorEvent["type"]>(type: T): string[] {
    return this.events.filter((event) => event.type === type).map((event) => event.name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.supervisor.kill();
  }
}
