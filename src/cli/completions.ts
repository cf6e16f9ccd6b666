/** `state-manager completions SHELL`: a script for the shell, made from the command table. It asks nobody when it runs. */

import { type CommandSpec, GROUPS, type OptionSpec } from "./command_options.ts";
import { COMMANDS } from "./command_table.ts";
import { type Context, type ExitCode, type Options, usageError } from "./context.ts";

interface Flag {
  readonly short: string | null;
  readonly long: string;
  readonly text: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
}

/** What may follow some words of the command line: none, `checkpoint`, `checkpoint list`. */
interface Place {
  readonly path: readonly string[];
  readonly words: readonly { readonly word: string; readonly text: string }[];
  readonly flags: readonly Flag[];
}

const HELP: Flag = { short: "h", long: "help", text: "print this help", takesValue: false, choices: [] };

export function printCompletions(
  { terminal }: Context,
  _options: Options,
  [shell = ""]: readonly string[],
): Promise<ExitCode> {
  terminal.out(completionScript(shell, COMMANDS));
  return Promise.resolve(0);
}

/** Error: `usage` for a shell that is not known. */
export function completionScript(shell: string, commands: readonly CommandSpec[]): string {
  const places = placesOf(commands);
  if (shell === "bash") return bashScript(places);
  if (shell === "zsh") {
    return `#compdef state-manager\nautoload -U +X bashcompinit && bashcompinit\n${bashScript(places)}`;
  }
  if (shell === "fish") return fishScript(places);
  throw usageError("completions: want bash, zsh or fish", "state-manager completions bash");
}

function placesOf(commands: readonly CommandSpec[]): Place[] {
  const visible = commands.filter(({ hidden }) => hidden !== true);
  const under = (path: readonly string[]): Place["words"] => {
    const found = new Map<string, string>();
    for (const { name, text } of visible) {
      const words = name.split(" ");
      const word = words[path.length];
      if (word === undefined || !path.every((part, index) => words[index] === part)) continue;
      found.set(word, words.length === path.length + 1 ? text : GROUPS[word]?.text ?? text);
    }
    return [...found].map(([word, text]) => ({ word, text }));
  };
  // Alone the program is the server, and a group is its standard command.
  const flags = (name: string) => flagsOf(commands.find((spec) => spec.name === name)?.options ?? []);
  const version = { ...HELP, short: "V", long: "version", text: "print the version" };
  return [
    { path: [], words: under([]), flags: [...flags("serve"), version] },
    ...Object.entries(GROUPS).map(([group, { standard }]) => ({
      path: [group],
      words: under([group]),
      flags: flags(`${group} ${standard}`),
    })),
    ...visible.map(({ name, options }) => ({ path: name.split(" "), words: [], flags: flagsOf(options) })),
  ];
}

function flagsOf(options: readonly OptionSpec[]): Flag[] {
  return [
    ...options.map(({ flags, text, choices = [] }) => {
      const [, short = null, long = ""] = /^(?:-(\w), )?--([\w-]+)/.exec(flags) ?? [];
      return { short, long, text, takesValue: flags.includes("<"), choices };
    }),
    HELP,
  ];
}

function spellings({ short, long }: Flag): string[] {
  return [...(short === null ? [] : [`-${short}`]), `--${long}`];
}

/** Nothing found means names of files, by `-o default`: most arguments and values are some. */
function bashScript(places: readonly Place[]): string {
  const steps = places.filter(({ path }) => path.length > 0).map(({ path }) =>
    `      "${path.slice(0, -1).join(" ")}/${path.at(-1)}") path="${path.join(" ")}" ;;`
  );
  const values = places.flatMap(({ path, flags }) =>
    flags.filter(({ takesValue }) => takesValue).map((flag) => {
      const pattern = spellings(flag).map((text) => `"${path.join(" ")}/${text}"`).join("|");
      const reply = flag.choices.length === 0
        ? ""
        : `COMPREPLY=($(compgen -W "${flag.choices.join(" ")}" -- "$cur")); `;
      return `    ${pattern}) ${reply}return ;;`;
    })
  );
  const words = places.map(({ path, words, flags }) => {
    const all = [...words.map(({ word }) => word), ...flags.flatMap(spellings)];
    return `    "${path.join(" ")}") words="${all.join(" ")}" ;;`;
  });
  return `# Completion of state-manager: source <(state-manager completions bash)
_state_manager() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" path="" words="" i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ "\${COMP_WORDS[i]}" == "--" ]]; then return; fi
    case "$path/\${COMP_WORDS[i]}" in
${steps.join("\n")}
    esac
  done
  case "$path/\${COMP_WORDS[COMP_CWORD-1]}" in
${values.join("\n")}
  esac
  case "$path" in
${words.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _state_manager state-manager
`;
}

function fishScript(places: readonly Place[]): string {
  const quoted = (text: string) => `'${text.replace(/[\\']/g, "\\$&")}'`;
  const groups = Object.keys(GROUPS);
  const seen = (words: readonly string[]) => `__fish_seen_subcommand_from ${words.join(" ")}`;
  const lines = places.flatMap(({ path: [first, second], words, flags }) => {
    const isGroup = first !== undefined && groups.includes(first);
    const conditions = first === undefined
      ? ["__fish_use_subcommand"]
      : second !== undefined
      ? [seen([first]), seen([second])]
      : [seen([first]), `not ${seen(isGroup ? words.map(({ word }) => word) : groups)}`];
    const head = `complete -c state-manager -n ${quoted(conditions.join("; and "))}`;
    return [
      ...words.map(({ word, text }) => `${head} -a ${word} -d ${quoted(text)}`),
      ...flags.map(({ short, long, text, takesValue, choices }) =>
        head + (short === null ? "" : ` -s ${short}`) + ` -l ${long}` +
        (choices.length > 0 ? ` -x -a ${quoted(choices.join(" "))}` : takesValue ? " -r" : "") +
        ` -d ${quoted(text)}`
      ),
    ];
  });
  return `# Completion of state-manager: state-manager completions fish | source\n${lines.join("\n")}\n`;
}
