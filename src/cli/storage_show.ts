/** `state-manager storage show`: how much is in the store, by the running manager or straight from the store. */

import { measureStorage, STORED_KINDS, type StoredAmount } from "../manager/mod.ts";
import { storageView } from "../server/mod.ts";
import { openStore } from "../storage/mod.ts";
import { type JsonObject, openClient } from "./client.ts";
import { configuredPlace } from "./configured_store.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { fromManagerOrStore } from "./manager_or_store.ts";
import { json, size, table } from "./text.ts";

/** The manager lists all of the store for it. */
const LISTING_LIMIT_MS = 11 * 60_000;

export async function showStorage(context: Context, options: Options): Promise<ExitCode> {
  const answer = await fromManagerOrStore(context, options, askManager, readStore);
  context.terminal.out(options.flag("json") ? json(answer) : storageText(answer));
  return 0;
}

async function askManager(context: Context, options: Options): Promise<JsonObject> {
  using client = await openClient(context, options);
  return await client.get(`/storage?refresh=${options.flag("refresh")}`, LISTING_LIMIT_MS);
}

async function readStore(context: Context, options: Options): Promise<JsonObject> {
  const { clock, random } = context;
  const { store: settings } = await configuredPlace(context, options);
  const store = openStore(settings, { clock, random });
  try {
    const signal = new AbortController().signal; // an interrupt ends the process
    return storageView(await measureStorage(store, { clock, signal }), null);
  } finally {
    await store.close();
  }
}

function storageText(answer: JsonObject): string {
  const kinds = answer["kinds"] as Readonly<Record<string, StoredAmount>>;
  const databases = Object.entries(answer["databases"] as Readonly<Record<string, StoredAmount>>);
  const row = (name: string, { objects, bytes }: StoredAmount) => [name, String(objects), size(bytes)];
  const growth = answer["growth"] as JsonObject | null;
  const total = { objects: Number(answer["objects"]), bytes: Number(answer["bytes"]) };
  return table(["WHAT", "OBJECTS", "BYTES"], [
    ...STORED_KINDS.flatMap((kind) => {
      const amount = kinds[kind];
      return amount === undefined || amount.objects === 0 ? [] : [row(kind, amount)];
    }),
    ...databases.map(([name, amount]) => row(`  ${name}`, amount)).slice(0, databases.length > 1 ? 20 : 0),
    row("all", total),
  ]) + `as of ${String(answer["time"])}\n` + (growth === null ? "" : growthText(growth));
}

function growthText({ since, bytes, bytes_per_day: perDay }: JsonObject): string {
  const signed = (value: unknown) => `${Number(value) < 0 ? "-" : "+"}${size(Math.abs(Number(value)))}`;
  return `${signed(bytes)} since ${String(since)}, ${signed(perDay)} a day\n`;
}
