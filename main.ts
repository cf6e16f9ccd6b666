/** The program's entry: everything is behind the command line (src/cli/mod.ts). */

import { main } from "./src/cli/mod.ts";

Deno.exit(await main(Deno.args));
