import type { Bench } from './peers.ts';
import type { Result } from './report.ts';

export interface Options {
  readonly runs: number;
  readonly seconds: number;
}

export type Scenario = (bench: Bench, options: Options) => Promise<Result[]>;
