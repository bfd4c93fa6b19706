import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { Tally, TallyHistogram, type Timings } from './tally.ts';

/** Values of one process's metrics, as `prom-client` writes them to JSON. */
export type MetricValues = readonly object[];

/**
 * How the default metrics of several processes become one, where their sum (which `prom-client` forms of most) says nothing: what matters is
 * the process that is worst off, and when the first of them started.
 */
const OF_PROCESSES: Readonly<Record<string, 'min' | 'max'>> = {
  process_start_time_seconds: 'min',
  process_open_fds: 'max',
  process_max_fds: 'min',
  nodejs_eventloop_lag_seconds: 'max',
  nodejs_eventloop_lag_mean_seconds: 'max',
  nodejs_eventloop_lag_stddev_seconds: 'max',
  nodejs_eventloop_lag_p50_seconds: 'max',
  nodejs_eventloop_lag_p90_seconds: 'max',
  nodejs_eventloop_lag_p99_seconds: 'max',
};

/** Default metrics whose names end in `_total` though they are no counters, which Prometheus' conventions forbid; the same is in those without it. */
const MISNAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

/** What processes that have ended counted, as if one had; their gauges ended with them. */
export async function addUp(values: readonly MetricValues[]): Promise<MetricValues> {
  const counted = values.map((metrics) => metrics.filter((metric) => (metric as { type?: string }).type !== 'gauge'));
  return AggregatorRegistry.aggregate(counted as object[]).getMetricsAsJSON() as Promise<MetricValues>;
}

type Labels = Readonly<Record<string, string>>;

interface MetricJson {
  readonly name: string;
  readonly values: readonly Value[];
}

interface Value {
  readonly value: number;
  readonly labels: Readonly<Record<string, string | number>>;
  /** Of the parts of a histogram: `…_bucket`, `…_sum`, `…_count`. */
  readonly metricName?: string;
}

/** All metrics at one moment, by their names without `gateway_`; the count of a histogram as `<name>_count`. */
export class Reading {
  readonly #values = new Map<string, Value[]>();

  constructor(metrics: readonly MetricJson[]) {
    for (const { name, values } of metrics) {
      for (const value of values) {
        const of = value.metricName ?? name;
        const all = this.#values.get(of);
        if (all === undefined) this.#values.set(of, [value]);
        else all.push(value);
      }
    }
  }

  /** Added up over the label sets that match. */
  total(name: string, labels: Labels = {}): number {
    const match = Object.entries(labels);
    return this.sum(name, (of) => match.every(([label, text]) => of[label] === text));
  }

  /** Added up over the label sets that count. */
  sum(name: string, counts: (labels: Value['labels']) => boolean): number {
    return this.#of(name).reduce((sum, { value, labels }) => (counts(labels) ? sum + value : sum), 0);
  }

  /** By the values of one label, added up over the others; `counts` chooses among label sets. */
  by(name: string, label: string, counts: (labels: Value['labels']) => boolean = () => true): Map<string, number> {
    const sums = new Map<string, number>();
    for (const { value, labels } of this.#of(name)) {
      if (!counts(labels)) continue;
      const key = String(labels[label] ?? '');
      sums.set(key, (sums.get(key) ?? 0) + value);
    }
    return sums;
  }

  #of(name: string): readonly Value[] {
    return this.#values.get(`gateway_${name}`) ?? [];
  }
}

/**
 * The metrics of one process (Prometheus text format), named `gateway_…` but for those of the process itself. A room makes its metrics when it
 * is built and keeps them. A gauge may `collect` its value when it is read.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #others: (() => Promise<readonly MetricValues[]>)[] = [];
  #reading: Promise<string> | null = null;

  /** Also shows what is known of any process of Node: CPU, memory, file descriptors, the delay of the event loop (`process_…`, `nodejs_…`). */
  ofProcess(): void {
    collectDefaultMetrics({ register: this.#registry });
    for (const name of MISNAMED) this.#registry.removeSingleMetric(name);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Also shows what other processes of this gateway counted; asked at each reading. */
  include(others: () => Promise<readonly MetricValues[]>): void {
    this.#others.push(others);
  }

  /** This process's values, fit to be handed to another. */
  async values(): Promise<MetricValues> {
    const values = await this.#registry.getMetricsAsJSON();
    return values.map((metric) => ({ ...metric, aggregator: OF_PROCESSES[metric.name] ?? metric.aggregator }));
  }

  /** Everything, all processes added up, in the text format. Those who ask at the same time get the same answer. */
  async text(): Promise<string> {
    this.#reading ??= this.#all()
      .then((all) => all.metrics())
      .finally(() => {
        this.#reading = null;
      });
    return this.#reading;
  }

  /** A counter or gauge by its name without `gateway_`, added up over all processes and over the label sets that match. */
  async total(name: string, labels: Labels = {}): Promise<number> {
    return (await this.read()).total(name, labels);
  }

  /** Everything as it is now, all processes added up, for several questions at once. */
  async read(): Promise<Reading> {
    const metrics = await (await this.#all()).getMetricsAsJSON();
    return new Reading(metrics as unknown as readonly MetricJson[]);
  }

  async #all(): Promise<Registry> {
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
    collect?: (gauge: Gauge<L>) => void | Promise<void>,
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
              return collect(this);
            },
          }),
    });
  }

  histogram<L extends string>(name: string, help: string, buckets: number[], labels: readonly L[] = []): Histogram<L> {
    return new Histogram({ name: `gateway_${name}`, help, buckets, labelNames: labels, registers: [this.#registry] });
  }

  /** A histogram of what happens with every request, in seconds; see `Timings`. */
  timings<L extends string>(name: string, help: string, buckets: number[], labels: readonly L[]): Timings<L> {
    const options = { name: `gateway_${name}`, help, buckets, labelNames: labels, registers: [this.#registry] };
    return new TallyHistogram(options).timings;
  }
}
