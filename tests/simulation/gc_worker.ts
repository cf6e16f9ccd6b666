/** Runs ranges of garbage collections in a Worker. */

import { simulateGc } from "./gc_world.ts";
import { serveRanges } from "./seed_ranges.ts";

serveRanges(simulateGc);
