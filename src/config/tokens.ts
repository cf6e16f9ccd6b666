/** The API's tokens as hashes: files are read once, the tokens themselves are never kept. */

import { createHash } from "node:crypto";
import type { Problem } from "./problems.ts";
import type { ParsedConfig } from "./schema.ts";
import type { TokenConfig } from "./types.ts";
import { readSecretFile, type ReadText } from "./variables.ts";

/** Shorter ones can be guessed over a network in reasonable time. */
const SHORTEST_GOOD_TOKEN = 16;
const LONGEST_TOKEN = 4096;

export interface ReadTokens {
  readonly tokens: readonly TokenConfig[];
  readonly problems: Problem[];
  readonly warnings: string[];
}

/** Configured tokens, and that of STATE_MANAGER_TOKEN or STATE_MANAGER_TOKEN_FILE as "environment". */
export async function readTokens(
  parsed: ParsedConfig,
  variables: Readonly<Record<string, string>>,
  readText: ReadText,
): Promise<ReadTokens> {
  const tokens: TokenConfig[] = [];
  const problems: Problem[] = [];
  const warnings: string[] = [];
  const add = (name: string, scope: "read" | "write", text: string | null, at: Problem["at"]) => {
    if (text === null) {
      return problems.push({ at, detail: "got a file that cannot be read, wanted a token in it" });
    }
    if (!/^[\x21-\x7e]+$/.test(text) || text.length > LONGEST_TOKEN) {
      return problems.push({ at, detail: "got no usable token, wanted one word of printable characters" });
    }
    if (text.length < SHORTEST_GOOD_TOKEN) {
      warnings.push(`token "${name}" has fewer than ${SHORTEST_GOOD_TOKEN} characters: it can be guessed`);
    }
    return tokens.push({ name, scope, sha256: createHash("sha256").update(text).digest("hex") });
  };
  for (const [index, token] of (parsed.server?.tokens ?? []).entries()) {
    if (token.hash !== undefined) {
      tokens.push({ name: token.name, scope: token.scope, sha256: token.hash.slice("sha256:".length) });
    } else if (token.token_file !== undefined) {
      const at = ["server", "tokens", String(index), "token_file"];
      add(token.name, token.scope, await readSecretFile(token.token_file, readText), at);
    }
  }
  const direct = variables["STATE_MANAGER_TOKEN"];
  const file = variables["STATE_MANAGER_TOKEN_FILE"];
  if (direct) add("environment", "write", direct, "STATE_MANAGER_TOKEN");
  else if (file) {
    add("environment", "write", await readSecretFile(file, readText), "STATE_MANAGER_TOKEN_FILE");
  }
  return { tokens, problems, warnings };
}
