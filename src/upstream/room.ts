import type { Config } from '../config/config.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Budget } from './budget.ts';
import type { Endpoints } from './endpoints.ts';
import type { Measures } from './measures.ts';
import type { Punishments } from './pieces.ts';
import type { Requester } from './request.ts';

/** What the parts of this room share. */
export interface Room {
  readonly requester: Requester;
  readonly endpoints: Endpoints;
  readonly punishments: Punishments;
  /** Whole downloads, by registry. */
  readonly fills: Budget;
  /** Connections that are in use. */
  readonly sockets: Budget;
  readonly config: Config['upstream'];
  readonly log: Logger;
  readonly metrics: Measures;
}
