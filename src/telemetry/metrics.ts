import { AggregatorRegistry, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { Tally } from './tally.ts';

/** Values of one process's metrics, as `prom-client` writes them to JSON. */
export type MetricValues = readonly object[];

/** What processes that have ended counted, as if one had; their gauges ended with them. */
export async function addUp(values: readonly MetricValues[]): Promise<MetricValues> {
  const counted = values.map((metrics) => metrics.filter((metric) => (metric as { type?: string }).type !== 'gauge'));
  return AggregatorRegistry.aggregate(counted as object[]).getMetricsAsJSON() as Promise<MetricValues>;
}

/**
 * The one registry of metrics (Prometheus text format), all named `gateway_…`. A room asks for its metrics when it is built
 * and keeps them; what it does not get is not measured. A gauge may `collect` its value when it is read.
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

  /** A counter for what happens with every request. */
  tally<L extends string>(name: string, help: string, labels: readonly L[]): Tally<L> {
    const tally = new Tally(labels);
    new Counter({
      name: `gateway_${name}`,
      help,
      labelNames: labels,
      registers: [this.#registry],
      collect() {
        tally.tell(this);
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
