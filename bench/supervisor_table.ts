/** Prints one column for each supervisor, and beside each of the others' figures how many times ours it is. */

import { type Aim, figure, say } from "./replication_table.ts";

export interface Row {
  readonly name: string;
  /** Ours first; null: it was not measured, or did not get there. */
  readonly cells: readonly (number | null)[];
  readonly aim?: Aim;
}

const NAME_WIDTH = 34;
const CELL_WIDTH = 19;

export function sayRows(title: string, columns: readonly string[], rows: readonly Row[]): void {
  say(`\n${title}`);
  say("".padEnd(NAME_WIDTH) + columns.map((column) => column.padStart(CELL_WIDTH)).join(""));
  for (const { name, cells, aim } of rows) {
    const [our] = cells;
    const texts = cells.map((cell, index) => {
      if (cell === null || Number.isNaN(cell)) return "–";
      const times = index === 0 || typeof our !== "number" || our === 0
        ? ""
        : ` (${(cell / our).toFixed(2)}×)`;
      return figure(cell) + times;
    });
    const line = name.padEnd(NAME_WIDTH) + texts.map((text) => text.padStart(CELL_WIDTH)).join("");
    say(aim === undefined ? line : `${line}   ${aim.isMet ? "met" : "MISSED"}: ${aim.text}`);
  }
}
