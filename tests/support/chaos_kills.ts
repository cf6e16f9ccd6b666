/** Kills at random points, one after the other, each followed by a start that must be whole. A seed replays the choices. */

import { ChaosHistory } from "./chaos_history.ts";
import { type ChaosMachine, ChaosScene, nowMs, stateOfProcess } from "./chaos_scene.ts";
import { descendants, ManagerProcess, waitFor } from "./manager_process.ts";
import type { TestStore } from "./test_stores.ts";
import { seededRandom } from "./tree_model.ts";

const PHASES = ["idle", "checkpoint", "restore", "start-up restore", "take-over"] as const;
export type KillPhase = typeof PHASES[number];
export type KillKind = "manager" | "tree";

export interface KillReport {
  readonly phase: KillPhase;
  readonly kind: KillKind;
  /** Whether the work was still under way when the kill struck. */
  readonly inside: boolean;
  /** How long the programs outlived a killed manager. */
  readonly outlivedMs: number;
}

export interface KillWalkOptions {
  readonly kills: number;
  readonly seed: number;
  readonly ttlMs: number;
  readonly database: boolean;
  /** Only whole trees, where no guard ends the programs of a manager that died alone. */
  readonly kinds?: readonly KillKind[];
  readonly onKill?: (report: KillReport, n: number) => void;
}

/** A program that outlives its manager for so long was forgotten. */
const OUTLIVE_LIMIT_MS = 20_000;

class Walk {
  readonly #scene: ChaosScene;
  readonly #history: ChaosHistory;
  readonly #random: () => number;
  readonly #machines: ChaosMachine[] = [];
  #machine: ChaosMachine;
  #manager: ManagerProcess | null = null;
  #checkpointMs = 400;
  #restoreMs = 800;
  readonly starts: number[] = [];

  constructor(scene: ChaosScene, seed: number) {
    this.#scene = scene;
    this.#history = new ChaosHistory(scene);
    this.#random = seededRandom(seed);
    this.#machine = this.#newMachine();
  }

  #newMachine(): ChaosMachine {
    const machine = this.#scene.machine(`m${this.#machines.length + 1}`);
    this.#machines.push(machine);
    return machine;
  }

  async #pause(mostMs: number): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, this.#random() * mostMs));
  }

  #start(machine: ChaosMachine): ManagerProcess {
    this.#machine = machine;
    this.#history.managerStarted(machine);
    this.#manager = machine.start();
    return this.#manager;
  }

  async run(machine = this.#machine): Promise<ManagerProcess> {
    const mark = this.#scene.journal().length;
    const startedMs = nowMs();
    const manager = this.#start(machine);
    const { tookMs } = await this.#history.running(machine, manager, mark, startedMs);
    this.starts.push(tookMs);
    await machine.nextLine("value", mark, () => manager.tail());
    this.#history.assertAlone();
    return manager;
  }

  async checkpoint(manager: ManagerProcess): Promise<void> {
    const low = this.#machine.lastLine()?.value ?? 0;
    const beganMs = nowMs();
    const { checkpoint } = await manager.checkpoint();
    this.#checkpointMs = nowMs() - beganMs;
    this.#history.acknowledge(checkpoint.id, low, (this.#machine.lastLine()?.value ?? 0) + 1);
  }

  async #kill(manager: ManagerProcess, kind: KillKind): Promise<number> {
    const programs = descendants(manager.pid);
    if (kind === "tree") await manager.killTree();
    else {
      manager.signal("SIGKILL");
      await manager.exit();
    }
    const diedMs = nowMs();
    // Half of the next starts meet what is still dying.
    if (kind === "manager" && this.#random() < 0.5) {
      await waitFor(
        "the programs of a dead manager to end",
        () => programs.every((pid) => stateOfProcess(pid) === null),
        OUTLIVE_LIMIT_MS,
        () => programs.map((pid) => `${pid} ${stateOfProcess(pid)}`).join(", ") + manager.tail(),
      );
    }
    const outlivedMs = nowMs() - diedMs;
    this.#scene.forget(manager);
    this.#manager = null;
    return outlivedMs;
  }

  /** Kills in `phase`, checks the start after it, and leaves a running manager. */
  async step(
    manager: ManagerProcess,
    phase: KillPhase,
    kind: KillKind,
  ): Promise<[ManagerProcess, KillReport]> {
    const machine = this.#machine;
    let inside = true;
    let restore: { source: ChaosHistory["acknowledged"][number]; mark: number } | null = null;
    let victim = manager;
    let mark = 0;
    if (phase === "idle") await this.#pause(600);
    if (phase === "checkpoint") {
      const low = machine.lastLine()?.value ?? 0;
      const asked = manager.fetch("/checkpoint", { json: {} }).then(async (response) => {
        const body = await response.json();
        if (response.status !== 201) return;
        inside = false;
        this.#history.acknowledge(body.checkpoint.id, low, (machine.lastLine()?.value ?? 0) + 1);
      }).catch(() => {}); // cut off by the kill
      await this.#pause(this.#checkpointMs * 1.1);
      const outlivedMs = await this.#kill(manager, kind);
      await asked;
      this.#history.killed(machine, null);
      return [await this.#again(phase), { phase, kind, inside, outlivedMs }];
    }
    if (phase === "restore") {
      const { acknowledged } = this.#history;
      const source = acknowledged[Math.floor(this.#random() * acknowledged.length)];
      if (source === undefined) throw new Error("no checkpoint to restore");
      restore = { source, mark: this.#scene.journal().length };
      this.#history.restoreBegun(source);
      const beganMs = nowMs();
      const asked = manager.fetch("/restore", { json: { checkpoint: source.id } }).then(async (response) => {
        await response.body?.cancel();
        if (response.status !== 200) return;
        inside = false;
        this.#restoreMs = nowMs() - beganMs;
        this.#history.restoreDone(source);
      }).catch(() => {}); // cut off by the kill
      await this.#pause(this.#restoreMs * 1.1);
      const outlivedMs = await this.#kill(manager, kind);
      await asked;
      this.#history.killed(machine, restore);
      return [await this.#again(phase), { phase, kind, inside, outlivedMs }];
    }
    if (phase === "start-up restore" || phase === "take-over") {
      await this.#kill(manager, "tree");
      this.#history.killed(machine, null);
      mark = this.#scene.journal().length;
      const token = (await this.#scene.lease())?.token ?? 0;
      const other = phase === "start-up restore" ? this.#newMachine() : this.#otherThan(machine);
      victim = this.#start(other);
      await waitFor(
        "the take-over of the lease",
        async () => ((await this.#scene.lease())?.token ?? 0) > token,
        60_000,
        () => victim.tail(),
      );
      if (phase === "start-up restore") {
        await waitFor(
          "a restore",
          () => victim.stderr.includes("state: restoring"),
          60_000,
          () => victim.tail(),
        );
      }
      await this.#pause(phase === "take-over" ? 60 : 500);
      inside = !victim.stderr.includes("state: running");
    }
    const outlivedMs = await this.#kill(victim, kind);
    if (victim === manager) this.#history.killed(machine, null);
    else this.#history.ranUnseen(this.#machine, mark);
    return [await this.#again(phase), { phase, kind, inside, outlivedMs }];
  }

  #otherThan(machine: ChaosMachine): ChaosMachine {
    const others = this.#machines.filter((each) => each !== machine);
    return others[Math.floor(this.#random() * others.length)] ?? this.#newMachine();
  }

  /** The next start: here, or on another machine; what is durable is asked for once more. */
  async #again(phase: KillPhase): Promise<ManagerProcess> {
    const here = this.#random() < (phase === "idle" ? 0.7 : 0.5);
    const manager = await this.run(here ? this.#machine : this.#otherThan(this.#machine));
    if (this.#random() < 0.6) await this.checkpoint(manager);
    return manager;
  }

  /** Every one of some finished checkpoints comes back as it was. */
  async restoreSome(manager: ManagerProcess, count: number): Promise<void> {
    const all = this.#history.acknowledged;
    for (let i = 0; i < count; i++) {
      const source = all[Math.floor(this.#random() * all.length)];
      if (source === undefined) return;
      const mark = this.#scene.journal().length;
      await manager.json("/restore", { json: { checkpoint: source.id } });
      const { value, greatest = value, torn } = await this.#machine.nextLine("found", mark);
      if (value < source.low || greatest > source.high || torn?.length !== 0) {
        throw new Error(`restore of ${JSON.stringify(source)} gave ${value}..${greatest}, torn ${torn}`);
      }
    }
  }

  assertAlone(): void {
    this.#history.assertAlone();
  }
}

export interface KillSummary {
  readonly reports: readonly KillReport[];
  /** From a manager's start to its program's, milliseconds. */
  readonly starts: readonly number[];
}

/** One line per phase and kind. */
export function summaryTable({ reports, starts }: KillSummary): string {
  const rows = PHASES.flatMap((phase) =>
    (["manager", "tree"] as const).map((kind) => {
      const of = reports.filter((each) => each.phase === phase && each.kind === kind);
      const inside = of.filter((each) => each.inside).length;
      return `${phase.padEnd(17)} ${kind.padEnd(8)} ${String(of.length).padStart(5)} ${
        String(inside).padStart(7)
      }`;
    })
  );
  const sorted = [...starts].sort((a, b) => a - b);
  const at = (part: number) => Math.round(sorted[Math.floor((sorted.length - 1) * part)] ?? 0);
  return [
    "phase             kill      kills  inside",
    ...rows,
    `${reports.length} kills, ${starts.length} whole starts: p50 ${at(0.5)} ms, most ${
      at(1)
    } ms to the program`,
  ].join("\n");
}

export async function walkOfKills(store: TestStore, options: KillWalkOptions): Promise<KillSummary> {
  const { kills, seed, ttlMs, database, kinds = ["manager", "tree"] } = options;
  await using scene = new ChaosScene(store, { ttlMs, database });
  const walk = new Walk(scene, seed);
  const random = seededRandom(seed + 1);
  const reports: KillReport[] = [];
  const first = scene.machine("m1");
  let n = 0;
  try {
    let manager = await walk.run();
    await walk.checkpoint(manager);
    const rest: KillPhase[] = [];
    for (; n < kills; n++) {
      if (rest.length === 0) rest.push(...PHASES);
      const [phase = "idle"] = rest.splice(Math.floor(random() * rest.length), 1);
      const kind = kinds[n % kinds.length] ?? "tree";
      const [next, report] = await walk.step(manager, phase, kind);
      manager = next;
      reports.push(report);
      options.onKill?.(report, n);
    }
    await walk.restoreSome(manager, 2);
    walk.assertAlone();
    return { reports, starts: walk.starts };
  } catch (error) {
    throw new Error(`kill ${n + 1} of seed ${seed}, data of ${first.name} and others: ${error}`, {
      cause: error,
    });
  }
}
