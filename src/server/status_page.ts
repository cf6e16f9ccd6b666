/**
 * The page that a browser gets at `/`: the status for a tired operator, readable without scripts. It runs nothing,
 * loads nothing and is refreshed by the browser; every value goes through the template's escaping.
 */

import { html, raw } from "hono/html";
import type { DatabaseInfo, ManagerStatus } from "../manager/control.ts";
import type { ProcessStatus } from "../supervisor/types.ts";

type Part = ReturnType<typeof html>;

/** How often the browser asks again. */
const REFRESH_SECONDS = 5;

/** Of a pattern there may be thousands. */
const MOST_DATABASES = 100;

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); vertical-align: top; }
th { font-weight: 600; } code, pre { font-size: .9em; } pre { overflow-x: auto; }
.state { font-weight: 700; } .warning { border-left: .3rem solid #c60; padding-left: .8rem; }
.scroll { overflow-x: auto; }
`;

/** The whole page as a response, with a policy that allows this one style and nothing else. */
export async function statusPage(
  status: ManagerStatus,
  { nowMs, nonce }: { readonly nowMs: number; readonly nonce: string },
): Promise<Response> {
  const page = await html`
    <!DOCTYPE html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta http-equiv="refresh" content="${REFRESH_SECONDS}">
        <title>${status.state} &ndash; ${status.name ?? "state-manager"}</title>
        <style nonce="${nonce}">${raw(STYLE)}</style>
      </head>
      <body>
        <main>
    <h1>${status.name ?? "state-manager"}: <span class="state">${status
      .state}</span></h1>
    ${status.reason === null ? "" : html`<p>${status.reason}</p>`}
    ${status.warnings.map((text) => html`<p class="warning" role="note">Warning: ${text}</p>`)}
    ${overview(status)}
    ${processTable(status.processes)}
    ${databaseTable(status.databases)}
    ${filesTable(status)}
        </main>
        <footer>
          <p><small>As of ${new Date(nowMs)
            .toISOString()}, refreshed every ${REFRESH_SECONDS} s.
    state-manager ${status.version} (${status.build}).</small></p>
        </footer>
      </body>
    </html>
  `;
  return new Response(String(page), {
    headers: {
      "content-type": "text/html; charset=utf-8",
      "vary": "accept",
      "content-security-policy":
        `default-src 'none'; style-src 'nonce-${nonce}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'`,
    },
  });
}

function overview(status: ManagerStatus): Part {
  const { lease, checkpoint, storage } = status;
  const current = checkpoint.current;
  const leaseText = lease === null ? "none" : [
    lease.state,
    lease.token === null ? null : `token ${lease.token}`,
    lease.remainingMs === null ? null : `${Math.max(0, Math.round(lease.remainingMs / 1000))} s left`,
    lease.heldBy === null ? null : `held by ${lease.heldBy.holder}`,
    lease.lastError,
  ].filter((part) => part !== null).join(", ");
  const checkpointText = [
    current === null
      ? "none yet"
      : `v${current.n} of ${new Date(current.time).toISOString()} (${current.kind})`,
    checkpoint.running ? "another one is being made" : null,
    checkpoint.next === null ? null : `next ${checkpoint.next}`,
    checkpoint.last_error === null ? null : `last error: ${checkpoint.last_error}`,
  ].filter((part) => part !== null).join("; ");
  const storageText = storage === null
    ? "not configured"
    : `${storage.description}, prefix "${storage.key_prefix}"${
      storage.encrypted ? ", checkpoints encrypted" : ""
    }`;
  return html`
    <table>
      <tr>
        <th scope="row">Up</th>
        <td>${duration(status.uptime_seconds)}, since ${status
          .started}, pid ${status.pid}</td>
      </tr>
      <tr>
        <th scope="row">Store</th>
        <td>${storageText}</td>
      </tr>
      <tr>
        <th scope="row">Lease</th>
        <td>${leaseText}</td>
      </tr>
      <tr>
        <th scope="row">Checkpoint</th>
        <td>${checkpointText}</td>
      </tr>
    </table>
  `;
}

function processTable(processes: readonly ProcessStatus[]): Part | string {
  if (processes.length === 0) return "";
  return html`
    <h2>Processes</h2>
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th>Name</th>
            <th>State</th>
            <th>Wanted</th>
            <th>Pid</th>
            <th>Restarts</th>
            <th>Memory</th>
            <th>Last exit</th>
          </tr>
        </thead>
        <tbody>${processes.map((process) =>
          html`
            <tr>
              <td>${process.name}</td>
              <td>${process.state}${process.state === "running" && !process.ready
                ? ", not ready"
                : ""}${process.probeFailure === null
                ? ""
                : html`<br><small>${process.probeFailure}</small>`}${process.reason === null
                ? ""
                : html`<br><small>${process.reason}</small>`}${waitParts(process).map((part) =>
                  html`<br><small>${part}</small>`
                )}</td>
              <td>${process.wanted}</td>
              <td>${process.pid ?? "–"}</td>
              <td>${process.restarts}</td>
              <td>${memoryText(process)}</td>
              <td>${exitText(process)}</td>
            </tr>
            ${process.state === "failed" && process.lastLines.length > 0
              ? html`
                <tr>
                  <td colspan="7">
                    <pre>${process.lastLines.join("\n")}</pre>
                  </td>
                </tr>
              `
              : ""}
          `
        )}</tbody>
      </table>
    </div>
  `;
}

/** Those that are not well come first: of very many only some are shown. */
function databaseTable(databases: readonly DatabaseInfo[]): Part | string {
  if (databases.length === 0) return "";
  const isWell = ({ followed }: DatabaseInfo) => followed?.lastError === null ? 1 : 0;
  const shown = databases.toSorted((a, b) => isWell(a) - isWell(b)).slice(0, MOST_DATABASES);
  const hidden = databases.length - shown.length;
  return html`
    <h2>Databases</h2>
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th>Name</th>
            <th>State</th>
            <th>TXID</th>
            <th>In the store</th>
            <th>Lag</th>
            <th>Last drill</th>
          </tr>
        </thead>
        <tbody>${shown.map(({ name, followed, lastDrill }) =>
          html`
            <tr>
              <td>${name}</td>
              <td>${followed?.state ?? "stopped"}${(followed?.lastError ?? null) === null
                ? ""
                : html`<br><small>${followed?.lastError?.message}</small>`}</td>
              <td>${followed?.txid ?? "–"}</td>
              <td>${followed?.durableTxid ?? "–"}</td>
              <td>${followed === null ? "–" : `${(followed.lagMs / 1000).toFixed(1)} s`}</td>
              <td>${lastDrill?.outcome ?? "–"}</td>
            </tr>
          `
        )}</tbody>
      </table>
    </div>
    ${hidden === 0 ? "" : html`<p>${hidden} more: GET /databases lists all.</p>`}
  `;
}

function filesTable(status: ManagerStatus): Part | string {
  if (status.files.length === 0) return "";
  return html`
    <h2>Files</h2>
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th>Name</th>
            <th>Path</th>
            <th>At start</th>
            <th>Checkpoint</th>
          </tr>
        </thead>
        <tbody>${status.files.map((each) =>
          html`
            <tr>
              <td>${each.name}</td>
              <td><code>${each.path}</code></td>
              <td>${each.origin ?? "–"}</td>
              <td>${each.checkpoint ?? "–"}</td>
            </tr>
          `
        )}</tbody>
      </table>
    </div>
  `;
}

/** What it waits for before it starts; who is in the way of its stop, and until when. */
function waitParts({ waitingFor, stop, nextStartMs }: ProcessStatus): string[] {
  const parts = waitingFor.map(({ name, condition, state }) =>
    `waits for ${name} to be ${condition}, it is ${state}`
  );
  if (nextStartMs !== null) parts.push(`next start ${new Date(nextStartMs).toISOString()}`);
  if (stop === null) return parts;
  const who = stop.blockers.map(({ pid, name, state, wchan }) =>
    `${pid} (${name}, ${state}${wchan === null ? "" : `, ${wchan}`})`
  );
  const until = stop.killMs === null ? "" : `; killed at ${new Date(stop.killMs).toISOString()}`;
  const running = stop.command === null ? "" : `its ${stop.command} runs; `;
  return [...parts, `${running}waits for ${who.length === 0 ? "its output" : who.join(", ")}${until}`];
}

function memoryText({ use }: ProcessStatus): string {
  if (use === null) return "–";
  const mebibytes = `${(use.memoryBytes / 1_048_576).toFixed(1)} MiB`;
  return use.processes === 1 ? mebibytes : `${mebibytes} in ${use.processes}`;
}

function exitText({ lastExit }: ProcessStatus): string {
  if (lastExit === null) return "–";
  if (lastExit.kind === "signal") {
    return `${lastExit.signal}${lastExit.oom === true ? " (out of memory)" : ""}`;
  }
  return lastExit.kind === "exit" ? `code ${lastExit.code}` : `${lastExit.error} (${lastExit.code})`;
}

function duration(seconds: number): string {
  const whole = Math.floor(seconds);
  const units = [[86400, "d"], [3600, "h"], [60, "min"]] as const;
  for (const [size, unit] of units) {
    if (whole >= 2 * size) return `${Math.floor(whole / size)} ${unit}`;
  }
  return `${whole} s`;
}
