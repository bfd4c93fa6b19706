import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Exchange } from './exchange.ts';

/** From a page of a warm cache (1 ms) to a layer over a slow link (10 min), in seconds. */
const DURATIONS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600];

/** One access-log line and the metrics of each request, once its response is closed. */
export class Report {
  readonly #log: Logger;
  readonly #requests;
  readonly #seconds;
  readonly #bytes;
  readonly #cut;
  readonly #running;

  constructor(log: Logger, metrics: Metrics) {
    // Its fields are all named below and none is a secret; looking for some in every line would cost a fifth of a small request.
    this.#log = log.child({}, { redact: { paths: [] } });
    this.#requests = metrics.counter('http_requests_total', 'Requests answered', ['kind', 'status', 'from']);
    this.#seconds = metrics.histogram('http_request_seconds', 'From the request to its last byte', DURATIONS, ['kind']);
    this.#bytes = metrics.counter('http_sent_bytes_total', 'Body bytes sent to clients', ['from']);
    this.#cut = metrics.counter('http_bodies_cut_total', 'Bodies that ended before their length', ['reason']);
    this.#running = metrics.gauge('http_requests_running', 'Requests being answered');
  }

  begin(): void {
    this.#running.inc();
  }

  end(exchange: Exchange): void {
    this.#running.dec();
    const ms = performance.now() - exchange.started;
    const from = exchange.from ?? 'gateway';
    this.#requests.inc({ kind: exchange.kind, status: exchange.status, from });
    this.#seconds.observe({ kind: exchange.kind }, ms / 1000);
    if (exchange.bytes > 0) this.#bytes.inc({ from }, exchange.bytes);
    if (exchange.cut !== null) this.#cut.inc({ reason: exchange.cut });
    const level = exchange.kind === 'health' ? 'debug' : 'info';
    if (!this.#log.isLevelEnabled(level)) return;
    this.#log[level](
      {
        requestId: exchange.id,
        method: exchange.method,
        host: exchange.host,
        ...subject(exchange),
        status: exchange.status,
        bytes: exchange.bytes,
        ms: Math.round(ms * 10) / 10,
        ...(exchange.from === null ? {} : { from: exchange.from }),
        ...(exchange.cut === null ? {} : { cut: exchange.cut }),
        client: exchange.clientAddress,
        ...(exchange.user === null ? {} : { user: exchange.user }),
        userAgent: exchange.userAgent,
      },
      'request',
    );
  }
}

/** What was asked for; where it is no pull, the path, never its query: people paste secrets into those. */
function subject(exchange: Exchange): Record<string, string> {
  if (exchange.target === null) return { kind: exchange.kind, path: exchange.path.slice(0, 200) };
  const { registry, repository, what } = exchange.target;
  const subjectOf = { kind: what.kind, registry, repository };
  switch (what.kind) {
    case 'manifest':
      return { ...subjectOf, reference: what.reference.kind === 'tag' ? what.reference.tag : what.reference.digest };
    case 'blob':
    case 'referrers':
      return { ...subjectOf, reference: what.digest };
    case 'tags':
      return subjectOf;
  }
}
