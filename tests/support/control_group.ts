/** A control group inside another, both of our own, whose processor quotas a test sets: in whichever version is there. */

const ROOT = "/sys/fs/cgroup";
const PERIOD_US = 100_000;

export interface QuotaGroup extends AsyncDisposable {
  /** Cores; null: no quota. */
  setInner(cores: number | null): Promise<void>;
  setOuter(cores: number | null): Promise<void>;
  /** What the command prints, run inside; it throws where that fails. */
  run(argv: readonly string[]): Promise<string>;
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function setQuota(folder: string, cores: number | null): Promise<void> {
  const quota = cores === null ? null : Math.round(cores * PERIOD_US);
  if (await exists(`${folder}/cpu.max`)) {
    await Deno.writeTextFile(`${folder}/cpu.max`, `${quota ?? "max"} ${PERIOD_US}`);
  } else await Deno.writeTextFile(`${folder}/cpu.cfs_quota_us`, String(quota ?? -1));
}

/** Our own group of the processor in the first version, else in the second; null: neither is mounted as is usual. */
async function ownGroup(): Promise<string | null> {
  const lines = (await Deno.readTextFile("/proc/self/cgroup")).trim().split("\n").map((line) =>
    line.split(":")
  );
  for (const [, controllers = "", path = ""] of lines) {
    if (controllers.split(",").includes("cpu")) return `${ROOT}/cpu${path}`;
  }
  const [, , path] = lines.find(([id]) => id === "0") ?? [];
  return path === undefined ? null : ROOT + path;
}

/** Null where no group can be made: no right to, or a version whose groups hold no processes beside groups. */
export async function cpuQuotaGroup(): Promise<QuotaGroup | null> {
  const own = await ownGroup().catch(() => null);
  if (own === null) return null;
  const outer = `${own.replace(/\/$/, "")}/state-manager-test-${crypto.randomUUID()}`;
  const inner = `${outer}/inner`;
  const remove = async () => {
    for (const folder of [inner, outer]) await Deno.remove(folder).catch(() => {});
  };
  try {
    await Deno.mkdir(outer);
    if (await exists(`${outer}/cgroup.subtree_control`)) {
      await Deno.writeTextFile(`${outer}/cgroup.subtree_control`, "+cpu");
    }
    await Deno.mkdir(inner);
    for (const folder of [outer, inner]) await setQuota(folder, null);
  } catch {
    await remove();
    return null;
  }
  return {
    setInner: (cores) => setQuota(inner, cores),
    setOuter: (cores) => setQuota(outer, cores),
    async run(argv) {
      const enter = 'echo $$ > "$0" && exec "$@"';
      const { success, stdout, stderr } = await new Deno.Command("sh", {
        args: ["-c", enter, `${inner}/cgroup.procs`, ...argv],
      }).output();
      const text = new TextDecoder();
      if (!success) throw new Error(`${argv.join(" ")}: ${text.decode(stderr)}`);
      return text.decode(stdout).trim();
    },
    [Symbol.asyncDispose]: remove,
  };
}

export async function canMakeControlGroups(): Promise<boolean> {
  await using group = await cpuQuotaGroup();
  return group !== null;
}
