import { Histogram, type HistogramConfiguration } from 'prom-client';

type LabelValue = string | number;

/** A tree with a level for each label; a leaf has the row of label values that leads to it, and what was counted for it. */
class LabelNode {
  readonly values: readonly LabelValue[];
  readonly next = new Map<LabelValue, LabelNode>();
  amount = 0;

  constructor(values: readonly LabelValue[]) {
    this.values = values;
  }
}

/**
 * A counter that is incremented with every request. prom-client builds a string of all labels at each increment; here the values lead to a
 * number by a lookup each, and prom-client gets the sums when it is read.
 */
export class Tally<L extends string> {
  readonly #labels: readonly L[];
  readonly #root = new LabelNode([]);
  readonly #all: LabelNode[] = [];

  constructor(labels: readonly L[]) {
    this.#labels = labels;
  }

  /** `values`: one for each label, in their order. */
  add(amount: number, ...values: readonly LabelValue[]): void {
    let node = this.#root;
    for (const value of values) node = node.next.get(value) ?? this.#grow(node, value);
    node.amount += amount;
  }

  /** Adds to a counter of prom-client what was counted since the last time. */
  moveTo(counter: { inc(labels: Partial<Record<L, LabelValue>>, amount: number): void }): void {
    for (const node of this.#all) {
      if (node.amount === 0) continue;
      const labels: Partial<Record<L, LabelValue>> = {};
      for (const [index, label] of this.#labels.entries()) labels[label] = node.values[index] ?? '';
      counter.inc(labels, node.amount);
      node.amount = 0;
    }
  }

  #grow(from: LabelNode, value: LabelValue): LabelNode {
    const node = new LabelNode([...from.values, value]);
    from.next.set(value, node);
    this.#all.push(node);
    return node;
  }
}

/** How long things took, for one row of label values. */
class TimingNode {
  readonly values: readonly LabelValue[];
  readonly next = new Map<LabelValue, TimingNode>();
  /** How many took at most as long as each bucket says, and longer than the one before; at the end those that took longer than all. */
  readonly counts: Float64Array;
  sum = 0;

  constructor(values: readonly LabelValue[], buckets: number) {
    this.values = values;
    this.counts = new Float64Array(buckets + 1);
  }
}

/** A histogram that is added to with every request, as a `Tally` is. */
export class Timings<L extends string> {
  readonly labels: readonly L[];
  /** Upper bounds, seconds, ascending. */
  readonly buckets: readonly number[];
  readonly #root: TimingNode;
  readonly #all: TimingNode[] = [];

  constructor(labels: readonly L[], buckets: readonly number[]) {
    this.labels = labels;
    this.buckets = buckets;
    this.#root = new TimingNode([], buckets.length);
  }

  /** `values`: one for each label, in their order. */
  observe(seconds: number, ...values: readonly LabelValue[]): void {
    let node = this.#root;
    for (const value of values) node = node.next.get(value) ?? this.#grow(node, value);
    let bucket = 0;
    while (bucket < this.buckets.length && seconds > (this.buckets[bucket] as number)) bucket++;
    node.counts[bucket] = (node.counts[bucket] as number) + 1;
    node.sum += seconds;
  }

  /** As the text format has it: cumulative buckets, sum and count (https://prometheus.io/docs/instrumenting/exposition_formats/#histograms). */
  *samples(name: string): Generator<{ metricName: string; labels: Record<string, LabelValue>; value: number }> {
    for (const { values, counts, sum } of this.#all) {
      // A node on the way to others, for which nothing was counted.
      if (values.length < this.labels.length) continue;
      const labels = Object.fromEntries(this.labels.map((label, index) => [label, values[index] ?? '']));
      let count = 0;
      for (const [index, amount] of counts.entries()) {
        count += amount;
        yield { metricName: `${name}_bucket`, labels: { ...labels, le: this.buckets[index] ?? '+Inf' }, value: count };
      }
      yield { metricName: `${name}_sum`, labels, value: sum };
      yield { metricName: `${name}_count`, labels, value: count };
    }
  }

  #grow(from: TimingNode, value: LabelValue): TimingNode {
    const node = new TimingNode([...from.values, value], this.buckets.length);
    from.next.set(value, node);
    this.#all.push(node);
    return node;
  }
}

/** What prom-client reads of `Timings`. */
export class TallyHistogram<L extends string> extends Histogram<L> {
  readonly timings: Timings<L>;
  readonly #about: { readonly name: string; readonly help: string };

  constructor(options: HistogramConfiguration<L> & { readonly buckets: number[]; readonly labelNames: readonly L[] }) {
    super(options);
    this.#about = options;
    this.timings = new Timings(options.labelNames, options.buckets);
  }

  override async get(): ReturnType<Histogram<L>['get']> {
    const empty = await super.get();
    return { ...empty, values: [...this.timings.samples(this.#about.name)] as unknown as typeof empty.values };
  }
}
