/** The house's own lint rules, by path, so that they work offline: the import rule, "Deno.* only in platform", no errors at load. */

/** Layer of each room; a room imports from lower layers and from itself, never from a sibling of its own layer. */
const LAYERS: Readonly<Record<string, number>> = {
  platform: 0,
  storage: 1,
  lease: 2,
  supervisor: 2,
  database: 2,
  checkpoint: 2,
  mount: 2,
  config: 2,
  manager: 3,
  server: 4,
  cli: 5,
};

function roomOf(path: string): string | undefined {
  return /\/src\/([a-z_]+)\//.exec(path)?.[1];
}

/** The room that `source`, written in `file`, points at; undefined when it is not one of ours. */
function targetRoom(file: string, source: string): string | undefined {
  if (!source.startsWith(".")) return undefined;
  return roomOf(new URL(source, `file://${file}`).pathname);
}

function problem(file: string, source: string): string | undefined {
  const from = roomOf(file);
  if (from === undefined) return undefined;
  const to = targetRoom(file, source);
  if (to === undefined || to === from) return undefined;
  const fromLayer = LAYERS[from];
  const toLayer = LAYERS[to];
  if (fromLayer === undefined || toLayer === undefined) {
    return `room "${from}" or "${to}" has no layer in tools/lint_plugin.ts`;
  }
  if (toLayer < fromLayer) return undefined;
  return `"${from}" must not import from "${to}": imports go down the layers only (docs/architecture.md)`;
}

interface Sourced {
  source?: { value?: unknown } | null;
}

const plugin: Deno.lint.Plugin = {
  name: "house",
  rules: {
    "layers": {
      create(context) {
        const check = (node: Deno.lint.Node & Sourced) => {
          const source = node.source?.value;
          if (typeof source !== "string") return;
          const message = problem(context.filename.replaceAll("\\", "/"), source);
          if (message !== undefined) context.report({ node, message });
        };
        return {
          ImportDeclaration: check,
          ExportNamedDeclaration: check,
          ExportAllDeclaration: check,
          ImportExpression: check,
        };
      },
    },
    "deno-in-platform": {
      create(context) {
        const room = roomOf(context.filename.replaceAll("\\", "/"));
        if (room === undefined || room === "platform") return {};
        return {
          MemberExpression(node) {
            if (node.object.type === "Identifier" && node.object.name === "Deno") {
              context.report({
                node,
                message: "only src/platform may use Deno.*: pass the effect in or add it there",
              });
            }
          },
        };
      },
    },
    "no-error-at-load": {
      create(context) {
        if (roomOf(context.filename.replaceAll("\\", "/")) === undefined) return {};
        return {
          "Program > VariableDeclaration > VariableDeclarator > NewExpression": refuseError,
          "Program > ExportNamedDeclaration > VariableDeclaration > VariableDeclarator > NewExpression":
            refuseError,
        };
        function refuseError(node: Deno.lint.NewExpression) {
          if (node.callee.type !== "Identifier" || !node.callee.name.endsWith("Error")) return;
          const message =
            "make the error where it is thrown: for the stack of one that a module makes at load " +
            "the runtime reads all of the bundle again, some 10 ms of each start";
          context.report({ node, message });
        }
      },
    },
  },
};

export default plugin;
