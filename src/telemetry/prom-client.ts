import { createRequire } from 'node:module';
import type prom from 'prom-client';

const load = createRequire(import.meta.url);

/**
 * The parts of prom-client that this program uses, loaded by their files: its index also loads OpenTelemetry, a push gateway and
 * metrics of Node itself, 2 MiB of resident memory in each process that nothing here would touch.
 */
export const Registry = load('prom-client/lib/registry.js') as typeof prom.Registry;
export type Registry = prom.Registry;
export const AggregatorRegistry = load('prom-client/lib/cluster.js') as typeof prom.AggregatorRegistry;
export const Counter = load('prom-client/lib/counter.js') as typeof prom.Counter;
export type Counter<Label extends string> = prom.Counter<Label>;
export const Gauge = load('prom-client/lib/gauge.js') as typeof prom.Gauge;
export type Gauge<Label extends string> = prom.Gauge<Label>;
export const Histogram = load('prom-client/lib/histogram.js') as typeof prom.Histogram;
export type Histogram<Label extends string> = prom.Histogram<Label>;
