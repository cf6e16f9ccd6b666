/**
 * Files of variables: `NAME=value` a line, `export` before it allowed, `#` begins a comment at the start of a line or
 * after a space. 'Single' quotes keep all as it is; "double" ones know \n, \t, \", \\, \$ and \`; both may go over several
 * lines. Nothing is expanded. What such a file holds is secret: no error names more than the line's number.
 */

/** A file that holds more was not meant to be one. */
export const ENV_FILE_LIMIT_BYTES = 1_048_576;

const NAME = /^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]{0,254})[ \t]*=[ \t]*/;
const ESCAPED: Readonly<Record<string, string>> = {
  n: "\n",
  t: "\t",
  '"': '"',
  "\\": "\\",
  $: "$",
  "`": "`",
};

/** The variables, or what is wrong. A name that comes twice has its last value. */
export function parseEnvFile(text: string): Record<string, string> | string {
  const result: Record<string, string> = {};
  const whole = text.replace(/^\uFEFF/, "").replaceAll("\r\n", "\n");
  let at = 0;
  let line = 1;
  while (at < whole.length) {
    const lineEnd = endOfLine(whole, at);
    const start = whole.slice(at, lineEnd);
    if (/^[ \t]*(#|$)/.test(start)) {
      at = lineEnd + 1;
      line++;
      continue;
    }
    const match = NAME.exec(start);
    const name = match?.[1];
    if (match === null || name === undefined) return `line ${line} is no NAME=value`;
    const value = readValue(whole, at + match[0].length);
    if (typeof value === "string") return `line ${line}: ${value}`;
    if (value.text.includes("\0")) return `line ${line}: the value holds a NUL`;
    result[name] = value.text;
    line += whole.slice(at, value.end).split("\n").length;
    at = value.end + 1;
  }
  return result;
}

function endOfLine(text: string, from: number): number {
  const end = text.indexOf("\n", from);
  return end < 0 ? text.length : end;
}

/** The value that begins at `from`, and where its line ends. */
function readValue(whole: string, from: number): { text: string; end: number } | string {
  const quote = whole[from];
  if (quote !== '"' && quote !== "'") {
    const end = endOfLine(whole, from);
    return { text: whole.slice(from, end).replace(/(^|[ \t]+)#.*$/, "").trimEnd(), end };
  }
  let text = "";
  for (let at = from + 1; at < whole.length; at++) {
    const char = whole[at] ?? "";
    if (char === quote) {
      const end = endOfLine(whole, at);
      return /^[ \t]*(#.*)?$/.test(whole.slice(at + 1, end))
        ? { text, end }
        : "something follows the closing quote";
    }
    const next = whole[at + 1] ?? "";
    if (char === "\\" && quote === '"' && Object.hasOwn(ESCAPED, next)) {
      text += ESCAPED[next];
      at++;
    } else text += char;
  }
  return "a quote is not closed";
}
