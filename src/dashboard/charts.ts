import { html } from 'hono/html';
import type { TimedSample } from '../telemetry/history.ts';

/** The drawing's own units; it is stretched to its place. */
const WIDTH = 600;
const HEIGHT = 100;
/** Points of a line: more than a screen of this size shows are drawn for nothing. */
const MOST_POINTS = 240;

export type Html = ReturnType<typeof html>;

export interface Line {
  readonly name: string;
  /** Selects its colour in the style sheet. */
  readonly tone: 'one' | 'two';
  readonly points: readonly Point[];
}

interface Point {
  /** Ms since 1970. */
  readonly at: number;
  readonly value: number;
}

/** Lines over one time, the highest value at the top. */
export function chart(title: string, lines: readonly Line[], text: (value: number) => string, most?: number): Html {
  const all = lines.flatMap(({ points }) => points);
  const [start, end] = [Math.min(...all.map(({ at }) => at)), Math.max(...all.map(({ at }) => at))];
  const top = most ?? Math.max(1, ...all.map(({ value }) => value));
  const x = (at: number) => (end > start ? ((at - start) / (end - start)) * WIDTH : WIDTH).toFixed(1);
  const y = (value: number) => (HEIGHT - (Math.min(value, top) / top) * HEIGHT).toFixed(1);
  const drawn = lines.map(({ tone, points }) => {
    // One point alone is a level.
    const [first] = points;
    const level = points.length === 1 && first !== undefined ? `0,${y(first.value)} ` : '';
    const path = level + points.map(({ at, value }) => `${x(at)},${y(value)}`).join(' ');
    return html`<polyline class="line ${tone}" points="${path}"></polyline>`;
  });
  const now = lines.map(({ name, points }) => `${name}: ${text(points.at(-1)?.value ?? 0)}`).join(', ');
  const clock = (at: number) => (Number.isFinite(at) ? new Date(at).toISOString().slice(11, 16) : '');
  const legend = lines.map(
    ({ name, tone, points }) =>
      html`<span class="key ${tone}">${name} <b>${text(points.at(-1)?.value ?? 0)}</b></span> `,
  );
  return html`<figure><figcaption>${title} ${legend}</figcaption>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${title}: ${now}"><line class="base" x1="0" x2="${WIDTH}" y1="${HEIGHT}" y2="${HEIGHT}"></line>${drawn}</svg>
<p class="axis"><span>${clock(start)} UTC</span><span>${text(top)}</span><span>${clock(end)} UTC</span></p></figure>`;
}

/** A value of each sample. */
export function levels(samples: readonly TimedSample[], value: (sample: TimedSample) => number): Point[] {
  return thinned(samples.map((sample) => ({ at: Date.parse(sample.at), value: value(sample) })));
}

/** How much a count grew between samples, a minute; nothing is said of a time that is too short. */
export function rates(samples: readonly TimedSample[], count: (sample: TimedSample) => number): Point[] {
  return between(samples, (before, after, minutes) => (count(after) - count(before)) / minutes);
}

/** The share of hits between samples, 0 to 1; as before where nothing was asked for. */
export function hitRatios(samples: readonly TimedSample[]): Point[] {
  let last = 0;
  return between(samples, (before, after) => {
    const hits = after.hits - before.hits;
    const asked = hits + after.misses - before.misses;
    if (asked > 0) last = hits / asked;
    return last;
  });
}

/** Shorter than this, ms, a difference says nothing. */
const LEAST = 1_000;

function between(
  samples: readonly TimedSample[],
  value: (before: TimedSample, after: TimedSample, minutes: number) => number,
): Point[] {
  return thinned(
    samples.slice(1).flatMap((after, index) => {
      const before = samples[index];
      if (before === undefined) return [];
      const ms = Date.parse(after.at) - Date.parse(before.at);
      return ms < LEAST ? [] : [{ at: Date.parse(after.at), value: Math.max(0, value(before, after, ms / 60_000)) }];
    }),
  );
}

/** Means of neighbours, where there are more points than are drawn; the last stays as it is. */
function thinned(points: readonly Point[]): Point[] {
  const step = Math.ceil(points.length / MOST_POINTS);
  if (step <= 1) return [...points];
  const means: Point[] = [];
  for (let from = 0; from < points.length; from += step) {
    const group = points.slice(from, from + step);
    const value = group.reduce((sum, point) => sum + point.value, 0) / group.length;
    means.push({ at: group.at(-1)?.at ?? 0, value });
  }
  return means;
}
