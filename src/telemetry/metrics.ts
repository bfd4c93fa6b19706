import { AggregatorRegistry, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Values of one process's metrics, as `prom-client` writes them to JSON. */
export type MetricValues = readonly object[];

/** What processes that have ended counted, as if one had; their gauges ended with them. */
export async function addUp(values: readonly MetricValues[]): Promise<MetricValues> {
  const counted = values.map((metrics) => metrics.filter((metric) => (metric as { type?: string }).type !== 'gauge'));
  return AggregatorRegistry.aggregate(counted as object[]).getMetricsAsJSON() as Promise<MetricValues>;
}

/**
 * The metrics of one process (Prometheus text format), all named `gateway_…`. A room makes its metrics when it is built and keeps them.
 * A gauge may `collect` its value when it is read.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #others: (() => Promise<readonly MetricValues[]>)[] = [];

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Also shows what other processes of this gateway counted; asked at each reading. */
  include(others: () => Promise<readonly MetricValues[]>): void {
    this.#others.push(others);
  }

  /** This process's values, fit to be handed to another. */
  values(): Promise<MetricValues> {
    return this.#registry.getMetricsAsJSON() as Promise<MetricValues>;
  }

  /** Everything, all processes added up, in the text format. */
  async text(): Promise<string> {
    return (await this.#all()).metrics();
  }

  /** A counter or gauge by its name without `gateway_`, added up over all processes and over the label sets that match. */
  async total(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    const metric = (await this.#all()).getSingleMetric(`gateway_${name}`);
    return ((await metric?.get())?.values ?? [])
      .filter((value) => Object.entries(labels).every(([key, text]) => value.labels[key] === text))
      .reduce((sum, { value }) => sum + value, 0);
  }

  async #all(): Promise<Registry> {
    if (this.#others.length === 0) return this.#registry;
    const others = (await Promise.all(this.#others.map((other) => other()))).flat();
    return AggregatorRegistry.aggregate([await this.values(), ...others] as object[]);
  }

  counter<L extends string>(name: string, help: string, labels: readonly L[] = []): Counter<L> {
    return new Counter({ name: `gateway_${name}`, help, labelNames: labels, registers: [this.#registry] });
  }

  /** A counter for what happens with every request; see `Tally`. */
  tally<L extends string>(name: string, help: string, labels: readonly L[]): Tally<L> {
    const tally = new Tally(labels);
    new Counter({
      name: `gateway_${name}`,
      help,
      labelNames: labels,
      registers: [this.#registry],
      collect() {
        tally.moveTo(this);
      },
    });
    return tally;
  }

  gauge<L extends string>(
    name: string,
    help: string,
    labels: readonly L[] = [],
    collect?: (gauge: Gauge<L>) => void,
  ): Gauge<L> {
    return new Gauge({
      name: `gateway_${name}`,
      help,
      labelNames: labels,
      registers: [this.#registry],
      ...(collect === undefined
        ? {}
        : {
            collect() {
              collect(this);
            },
          }),
    });
  }

  histogram<L extends string>(name: string, help: string, buckets: number[], labels: readonly L[] = []): Histogram<L> {
    return new Histogram({ name: `gateway_${name}`, help, buckets, labelNames: labels, registers: [this.#registry] });
  }
}

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
