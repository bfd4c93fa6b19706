import { Hono } from 'hono';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { small, withErrors, withHealth } from './app.ts';
import type { EdgeApp, EdgeBindings } from './front.ts';

/** `metrics.listen`: Prometheus's text format at `/metrics`. */
export function createMetricsPort(deps: { metrics: Metrics; ready: () => true | string; log: Logger }): EdgeApp {
  const app: EdgeApp = withHealth(new Hono<EdgeBindings>(), deps.ready);
  app.get('/metrics', async (c) =>
    small(c, 'health', {
      status: 200,
      headers: { 'content-type': deps.metrics.contentType },
      body: await deps.metrics.text(),
    }),
  );
  return withErrors(app, deps.log);
}
