import { median, ratios } from './stats.ts';

/** One figure of one server: a value a run, in the order of the runs. */
export interface Series {
  readonly peer: string;
  readonly values: readonly number[];
}

/** What a scenario measured, and the goal that it is held against. */
export interface Result {
  readonly scenario: string;
  readonly figure: string;
  readonly unit: string;
  /** Whether more is better; a ratio is always "how many times better than the peer". */
  readonly better: 'more' | 'less';
  readonly ours: Series;
  readonly peers: readonly { readonly series: Series; readonly goal?: number }[];
  /** A bound on our own figure, in its unit. */
  readonly bound?: number;
  readonly note?: string;
}

interface Row {
  readonly peer: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly ratio?: number;
  readonly goal?: number;
  readonly met?: boolean;
}

/** Medians, spreads, ratios pair by pair, and whether each goal was met: measured, never asserted. */
export function summarise(result: Result): Row[] {
  const { ours, peers, better, bound } = result;
  const own: Row = {
    ...spread(ours),
    ...(bound === undefined
      ? {}
      : { goal: bound, met: better === 'less' ? median(ours.values) <= bound : median(ours.values) >= bound }),
  };
  return [
    own,
    ...peers.map(({ series, goal }) => {
      const ratio = median(better === 'more' ? ratios(ours.values, series.values) : ratios(series.values, ours.values));
      return { ...spread(series), ratio, ...(goal === undefined ? {} : { goal, met: ratio >= goal }) };
    }),
  ];
}

function spread({ peer, values }: Series): Row {
  return { peer, median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

export function printTable(results: readonly Result[]): void {
  for (const result of results) {
    console.log(`\n${result.scenario}: ${result.figure} [${result.unit}], ${result.better} is better`);
    for (const row of summarise(result)) {
      const figures = `${number(row.median)}  (${number(row.min)} … ${number(row.max)})`;
      const verdict = row.met === undefined ? '' : row.met ? '  met' : '  NOT MET';
      const goal =
        row.goal === undefined
          ? ''
          : `  goal ${row.ratio === undefined ? number(row.goal) : `${number(row.goal)} ×`}${verdict}`;
      const ratio = row.ratio === undefined ? '' : `  ${row.ratio.toFixed(2)} ×`;
      console.log(`  ${row.peer.padEnd(22)} ${figures.padEnd(36)}${ratio}${goal}`);
    }
    if (result.note !== undefined) console.log(`  ${result.note}`);
  }
}

function number(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(3);
}
