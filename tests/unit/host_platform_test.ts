/** Who will stop the manager, by the marks of each platform, and when a budget is warned of. */

import assert from "node:assert/strict";
import { hostPlatform } from "../../src/platform/host_platform.ts";
import { FOLDER_STORE, type Given, load } from "../support/config_files.ts";

const PID = 77;

function platformWith(variables: Record<string, string>, ...files: string[]) {
  return hostPlatform(variables, (path) => Promise.resolve(files.includes(path)), PID);
}

Deno.test("each platform is known by its mark, with the grace that it documents", async () => {
  const known: [Record<string, string>, string[], string, number][] = [
    [{ K_SERVICE: "web" }, [], "Cloud Run", 10],
    [{ FLY_APP_NAME: "web" }, [], "Fly", 5],
    [{ NOMAD_ALLOC_ID: "1" }, ["/.dockerenv"], "Nomad", 5],
    [{ ECS_CONTAINER_METADATA_URI_V4: "http://…" }, ["/.dockerenv"], "ECS", 30],
    [{ DYNO: "web.1" }, [], "Heroku", 30],
    [{ KUBERNETES_SERVICE_HOST: "10.0.0.1" }, ["/.dockerenv"], "Kubernetes", 30],
    [{}, ["/run/.containerenv"], "Podman", 10],
    [{}, ["/.dockerenv"], "Docker", 10],
    [{ SYSTEMD_EXEC_PID: String(PID) }, [], "systemd", 90],
  ];
  for (const [variables, files, name, seconds] of known) {
    const platform = await platformWith(variables, ...files);
    assert.deepEqual([platform?.name, platform?.graceMs], [name, 1000 * seconds]);
  }
});

Deno.test("a person's own machine is no platform, nor what waits as long as somebody said", async () => {
  assert.equal(await platformWith({}), null);
  // A terminal that a session's systemd started has both.
  assert.equal(await platformWith({ SYSTEMD_EXEC_PID: "4711", INVOCATION_ID: "1f" }), null);
  assert.equal(await platformWith({ K_SERVICE: "web", KUBERNETES_SERVICE_HOST: "10.0.0.1" }), null);
});

async function warningsOf(given: Given, shutdown?: Record<string, string>): Promise<readonly string[]> {
  const file = { ...FOLDER_STORE, ...(shutdown === undefined ? {} : { shutdown }) };
  return (await load({ file, ...given })).warnings;
}

Deno.test("a budget beyond what the platform waits by default is warned of, with what raises it", async () => {
  const fly = { environment: { FLY_APP_NAME: "web" } };
  assert.deepEqual(await warningsOf(fly), [
    "shutdown.budget 9s is more than the 5s that Fly waits by default before it kills: raise that by kill_timeout " +
    "in fly.toml and tell it by shutdown.platform_grace, or lower the budget",
  ]);
  assert.deepEqual(await warningsOf(fly, { budget: "5s" }), []);
  const heroku = { environment: { DYNO: "web.1" } };
  assert.deepEqual(await warningsOf(heroku), []);
  assert.deepEqual(await warningsOf(heroku, { budget: "31s" }), [
    "shutdown.budget 31s is more than the 30s that Heroku waits by default before it kills: lower the budget, " +
    "since nothing raises that",
  ]);
  const docker = { files: { "/.dockerenv": "" } };
  assert.deepEqual(await warningsOf(docker), []);
  assert.match((await warningsOf(docker, { budget: "11s" })).join(), /Docker.*stop_grace_period/);
  assert.deepEqual(await warningsOf({}, { budget: "1h" }), [], "a person's own machine");
  assert.deepEqual((await load({ file: {}, ...fly })).warnings, [], "not configured yet");
});

Deno.test("shutdown.platform_grace counts in the place of a default, for the default of the budget, too", async () => {
  const fly = { environment: { FLY_APP_NAME: "web" } };
  assert.deepEqual(await warningsOf(fly, { budget: "55s", platform_grace: "1m" }), []);
  assert.deepEqual(await warningsOf(fly, { budget: "61s", platform_grace: "1m" }), [
    "shutdown.budget 1m1s is more than shutdown.platform_grace 1m: the manager would be killed while it still ships " +
    "the last state; lower the budget, or raise both",
  ]);
  const budgets = [["1m", 9000], ["10s", 9000], ["5s", 4000], ["1s", 1000]] as const;
  for (const [platform_grace, budgetMs] of budgets) {
    const { config, warnings } = await load({ file: { ...FOLDER_STORE, shutdown: { platform_grace } } });
    assert.deepEqual([config?.shutdown.budgetMs, warnings], [budgetMs, []], platform_grace);
  }
  const named = { STATE_MANAGER_SHUTDOWN_PLATFORM_GRACE: "20s" };
  const { config, redacted } = await load({ file: FOLDER_STORE, environment: named });
  assert.equal(config?.shutdown.platformGraceMs, 20_000);
  assert.deepEqual(redacted()?.["shutdown"], { budget: "9s", flush_reserve: "3s", platform_grace: "20s" });
});
