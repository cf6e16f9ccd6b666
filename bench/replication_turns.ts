/**
 * Commit latency in turns: each round measures every subject for some seconds, in an order that changes from round to
 * round, so that a machine whose speed drifts is as slow for one as for another. Some 20 µs are in question; a window
 * of minutes for each, one after the other, cannot tell them from the drift.
 */

import { quantile } from "./replication_probe.ts";
import { figure, type Row, type Table } from "./replication_table.ts";

/** How long each commit of one turn took, in ms. */
export type Turn = readonly number[];

/** The turns of one subject, one for each round. */
export type Turns = readonly Turn[];

/** Each subject comes as often first as last, and as often after one of the others as after the other: in six rounds. */
export function orderOf<T>(subjects: readonly T[], round: number): T[] {
  const first = round % subjects.length;
  const order = [...subjects.slice(first), ...subjects.slice(0, first)];
  return round % 2 === 0 ? order : order.toReversed();
}

/** Of the rounds: one that the machine disturbed does not decide. */
function median(turns: Turns, share: number): number {
  const values = turns.map((turn) => quantile(turn, share)).toSorted((a, b) => a - b);
  const middle = (values.length - 1) / 2;
  return ((values[Math.floor(middle)] ?? NaN) + (values[Math.ceil(middle)] ?? NaN)) / 2;
}

function each(turns: Turns, share: number): string {
  return turns.map((turn) => figure(quantile(turn, share))).join(" ");
}

/** `subjects`: the program alone, State Manager, Litestream, as the columns. */
export function turnsTable(
  columns: Table["columns"],
  subjects: readonly [Turns, Turns, Turns],
  { seconds, perSecond }: { readonly seconds: number; readonly perSecond: number },
): Table {
  const row = (name: string, of: (turns: Turns) => number | string): Row => ({
    name,
    cells: subjects.map(of),
  });
  const pooled = (share: number) => (turns: Turns) => quantile(turns.flat(), share);
  const [none, our, their] = subjects.map((turns) => median(turns, 0.99));
  const isMet = our !== undefined && none !== undefined && their !== undefined && our <= 1.2 * none &&
    our <= their;
  const rounds = subjects[0].length;
  return {
    title:
      `commit latency in turns: ${rounds} rounds, each subject ${seconds} s in each, ${perSecond} a second`,
    columns,
    rows: [
      row("transactions", (turns) => turns.reduce((sum, turn) => sum + turn.length, 0)),
      row("median of the rounds' p50, ms", (turns) => median(turns, 0.5)),
      {
        ...row("median of the rounds' p99, ms", (turns) => median(turns, 0.99)),
        aim: { text: "≤ 1.2 × alone, ≤ litestream", isMet },
      },
      row("p50 of all rounds, ms", pooled(0.5)),
      row("p99 of all rounds, ms", pooled(0.99)),
      row("p99.9 of all rounds, ms", pooled(0.999)),
      row("most of all rounds, ms", pooled(1)),
      row("p99 of each round, ms", (turns) => each(turns, 0.99)),
    ],
  };
}
