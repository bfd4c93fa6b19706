import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/**
 * The one registry of metrics (Prometheus text format), all named `gateway_…`. A room asks for its metrics when it is built
 * and keeps them; what it does not get is not measured. A gauge may `collect` its value when it is read.
 */
export class Metrics {
  readonly registry = new Registry();

  counter<L extends string>(name: string, help: string, labels: readonly L[] = []): Counter<L> {
    return new Counter({ name: `gateway_${name}`, help, labelNames: labels, registers: [this.registry] });
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
      registers: [this.registry],
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
    return new Histogram({ name: `gateway_${name}`, help, buckets, labelNames: labels, registers: [this.registry] });
  }
}
