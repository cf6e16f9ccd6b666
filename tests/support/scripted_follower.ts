/** A stand-in for the follower child: a shell script that writes down what it is told and answers as a case says. */

export interface ScriptedFollower extends Disposable {
  readonly command: { readonly command: string; readonly args: readonly string[] };
  /** What each life was told, one array per life. */
  lives(): readonly (readonly Told[])[];
}

export interface Told {
  readonly type: string;
  readonly id?: number;
  readonly [field: string]: unknown;
}

/** `cases`: branches of a shell `case` on the line; `$id` is the question's, `$life` counts from 1, `say` answers a line. */
export function scriptedFollower(cases: string, atStart = ""): ScriptedFollower {
  const folder = Deno.makeTempDirSync({ prefix: "sm-scripted-" });
  const text = `
    cd ${folder}
    say() { printf '%s\\n' "$1"; }
    answer() { say "{\\"type\\":\\"answer\\",\\"id\\":$id,\\"result\\":$1,\\"error\\":null}"; }
    life=$(( $(cat lives 2>/dev/null || echo 0) + 1 )); echo $life > lives
    say '{"type":"hello","protocol":1,"build":"test"}'
    ${atStart}
    while IFS= read -r line; do
      printf '%s\\n' "$line" >> "life-$life"
      id=$(printf '%s' "$line" | sed -n 's/.*"id":\\([0-9]*\\).*/\\1/p')
      case "$line" in
        ${cases}
      esac
    done`;
  return {
    command: { command: "/bin/sh", args: ["-c", text] },
    lives() {
      const lives: Told[][] = [];
      for (let life = 1;; life++) {
        let lines: string;
        try {
          lines = Deno.readTextFileSync(`${folder}/life-${life}`);
        } catch {
          return lives;
        }
        lives.push(lines.split("\n").slice(0, -1).map((line) => JSON.parse(line)));
      }
    },
    [Symbol.dispose]: () => Deno.removeSync(folder, { recursive: true }),
  };
}
