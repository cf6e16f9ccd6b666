/** Runs ranges of whole sessions in a Worker. */

import { serveRanges } from "./seed_ranges.ts";
import { simulate } from "./world.ts";

serveRanges(simulate);
