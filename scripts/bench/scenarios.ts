import type { Scenario } from './scenario.ts';
import { coldOverBadLink } from './scenarios/bad-link.ts';
import { coldBlob, coldCrowd } from './scenarios/cold.ts';
import { coldFast, coldStarts } from './scenarios/cold-fast.ts';
import { coldImage } from './scenarios/cold-image.ts';
import { fairness } from './scenarios/fairness.ts';
import { fleet } from './scenarios/fleet.ts';
import { handshakes } from './scenarios/handshakes.ts';
import { indexCost } from './scenarios/index-cost.ts';
import { memory } from './scenarios/memory.ts';
import { prefetch } from './scenarios/prefetch.ts';
import { rangeStorms } from './scenarios/range-storms.ts';
import { single } from './scenarios/single.ts';
import { coldOverSlowLink } from './scenarios/slow-link.ts';
import { smallMachine } from './scenarios/small-machine.ts';
import { start } from './scenarios/start.ts';
import { warmBlob, warmImage, warmManifest } from './scenarios/warm.ts';
import { workers } from './scenarios/workers.ts';

/** By the name that `--only` takes. Numbers come first, in their order; 10 to 15 are the first pull's. */
export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  1: warmBlob,
  2: warmManifest,
  3: warmImage,
  4: coldBlob,
  5: coldCrowd,
  6: handshakes,
  7: memory,
  8: start,
  9: indexCost,
  10: coldFast,
  11: coldStarts,
  12: coldImage,
  13: rangeStorms,
  14: coldOverBadLink,
  fairness,
  fleet,
  prefetch,
  single,
  15: smallMachine,
  slow: coldOverSlowLink,
  workers,
};
