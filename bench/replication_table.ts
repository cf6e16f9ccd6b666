/** Prints what the replication benchmark measured: one column for each subject, and State Manager's as a ratio. */

export function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

/** Null: does not apply. */
export type Cell = number | string | null;

export interface Aim {
  readonly text: string;
  readonly isMet: boolean;
}

export interface Row {
  readonly name: string;
  /** As many as there are columns. */
  readonly cells: readonly Cell[];
  readonly aim?: Aim;
}

export interface Table {
  readonly title: string;
  /** The first is the ground, the second State Manager, the third its peer. */
  readonly columns: readonly [string, string, string];
  readonly rows: readonly Row[];
}

/** Three digits that count. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Number.isInteger(value) || Math.abs(value) >= 100) return value.toFixed(0);
  return value.toFixed(Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3);
}

function text(cell: Cell): string {
  return cell === null ? "" : typeof cell === "number" ? figure(cell) : cell;
}

function ratio(a: Cell | undefined, b: Cell | undefined): string {
  return typeof a === "number" && typeof b === "number" && b > 0 ? (a / b).toFixed(2) : "";
}

const NAME_WIDTH = 32;
const CELL_WIDTH = 15;
/** Longer ones are written below the row. */
const MOST_WIDTH = 18;

export function sayTable({ title, columns, rows }: Table): void {
  say(`\n${title}`);
  const line = (name: string, cells: readonly string[]) =>
    `${name.padEnd(NAME_WIDTH)}${cells.map((cell) => cell.padStart(CELL_WIDTH)).join("")}`.trimEnd();
  say(line("", [...columns, "/ alone", "/ litestream"]));
  for (const { name, cells, aim } of rows) {
    const [ground, our, their] = cells;
    const texts = cells.map(text);
    if (texts.some((each) => each.length > MOST_WIDTH)) {
      for (const [n, each] of texts.entries()) {
        if (each !== "") say(`${`${name}, ${columns[n]}`.padEnd(NAME_WIDTH + 2)}${each}`);
      }
      continue;
    }
    const verdict = aim === undefined ? "" : `   ${aim.isMet ? "met" : "MISSED"}: ${aim.text}`;
    const whole = line(name, [...texts, ratio(our, ground), ratio(our, their)]);
    say(whole.padEnd(NAME_WIDTH + 5 * CELL_WIDTH) + verdict);
  }
}
