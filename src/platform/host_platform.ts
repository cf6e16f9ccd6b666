/**
 * Who will stop this process, by the marks that each platform leaves, and how long it waits by default between its stop
 * signal and SIGKILL. The real grace is nowhere to be read from inside: the defaults are for a warning, never for a rule.
 */

import { ownPid } from "./proc.ts";

export interface HostPlatform {
  /** As people know it. */
  readonly name: string;
  readonly graceMs: number;
  /** What raises it; null: nothing does. */
  readonly setting: string | null;
}

/** Each default as the platform's documentation has it. */
const PLATFORMS = {
  // cloud.google.com/run/docs/container-contract, "lifecycle": SIGTERM, 10 s later SIGKILL.
  cloudRun: { name: "Cloud Run", graceMs: 10_000, setting: null },
  // fly.io/docs/reference/configuration and fly.io/blog/graceful-vm-exits-some-dials: "The default is 5 seconds".
  fly: { name: "Fly", graceMs: 5_000, setting: "kill_timeout in fly.toml" },
  // developer.hashicorp.com/nomad/docs/job-specification/task: kill_timeout (string: "5s").
  nomad: { name: "Nomad", graceMs: 5_000, setting: "the task's kill_timeout" },
  // docs.aws.amazon.com, ECS ContainerDefinition: 30 s on EC2 and Fargate, there 120 s at most.
  ecs: { name: "ECS", graceMs: 30_000, setting: "the container's stopTimeout" },
  // devcenter.heroku.com/articles/dyno-shutdown-behavior: "30 seconds to shut down cleanly".
  heroku: { name: "Heroku", graceMs: 30_000, setting: null },
  // kubernetes.io, PodSpec: terminationGracePeriodSeconds "Defaults to 30 seconds".
  kubernetes: { name: "Kubernetes", graceMs: 30_000, setting: "the pod's terminationGracePeriodSeconds" },
  // docs.podman.io, podman-stop: "The default is 10 seconds".
  podman: { name: "Podman", graceMs: 10_000, setting: "--stop-timeout of podman run" },
  // docs.docker.com, docker container stop: 10 seconds for Linux containers.
  docker: { name: "Docker", graceMs: 10_000, setting: "--stop-timeout, in Compose stop_grace_period" },
  // systemd-system.conf(5): DefaultTimeoutStopSec=90s. The unit's own would have to be asked for over D-Bus, which may hang.
  systemd: { name: "systemd", graceMs: 90_000, setting: "the unit's TimeoutStopSec" },
} as const satisfies Readonly<Record<string, HostPlatform>>;

/** Variables that only one platform sets, the more special ones first: Nomad and ECS run Docker's containers. */
const VARIABLES: readonly (readonly [variable: string, platform: HostPlatform])[] = [
  ["FLY_APP_NAME", PLATFORMS.fly],
  ["NOMAD_ALLOC_ID", PLATFORMS.nomad],
  ["ECS_CONTAINER_METADATA_URI_V4", PLATFORMS.ecs],
  ["DYNO", PLATFORMS.heroku],
  ["KUBERNETES_SERVICE_HOST", PLATFORMS.kubernetes],
];

/** Files that container engines leave in every container. */
const MARKS: readonly (readonly [path: string, platform: HostPlatform])[] = [
  ["/run/.containerenv", PLATFORMS.podman],
  ["/.dockerenv", PLATFORMS.docker],
];

/** Null: none that we know, such as a person's own machine. */
export async function hostPlatform(
  variables: Readonly<Record<string, string>>,
  exists: (path: string) => Promise<boolean>,
  pid: number = ownPid(),
): Promise<HostPlatform | null> {
  if (variables["K_SERVICE"] !== undefined) {
    // Knative is the same on somebody's Kubernetes, but waits as long as the revision says.
    return variables["KUBERNETES_SERVICE_HOST"] === undefined ? PLATFORMS.cloudRun : null;
  }
  const [, named] = VARIABLES.find(([variable]) => variables[variable] !== undefined) ?? [];
  if (named !== undefined) return named;
  for (const [path, platform] of MARKS) {
    if (await exists(path)) return platform;
  }
  // systemd.exec(5): the pid of the process that the unit started, so that what a shell of a session inherits does not count.
  return variables["SYSTEMD_EXEC_PID"] === String(pid) ? PLATFORMS.systemd : null;
}
