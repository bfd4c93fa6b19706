import type { What } from '../oci/names.ts';
import type { PlainLog } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { RequestContext } from './request-context.ts';

/** From a page of a warm cache (1 ms) to a layer over a slow link (10 min), in seconds. */
const DURATIONS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600];

/** Longest path that a log line carries. */
const PATH_SHOWN = 200;

/** One access-log line and the metrics of each request, once its response is closed. */
export class AccessLog {
  readonly #log: PlainLog;
  readonly #requests;
  readonly #seconds;
  readonly #bytes;
  readonly #cut;
  #running = 0;

  /** `log` does not look for secrets: the fields are all named below, and none is one. */
  constructor(log: PlainLog, metrics: Metrics) {
    this.#log = log;
    this.#requests = metrics.tally('http_requests_total', 'Requests answered', ['kind', 'status', 'from']);
    this.#seconds = metrics.histogram('http_request_seconds', 'From the request to its last byte', DURATIONS, ['kind']);
    this.#bytes = metrics.tally('http_sent_bytes_total', 'Body bytes sent to clients', ['from']);
    this.#cut = metrics.counter('http_bodies_cut_total', 'Bodies that ended before their length', ['reason']);
    metrics.gauge('http_requests_running', 'Requests being answered', [], (gauge) => gauge.set(this.#running));
  }

  begin(): void {
    this.#running += 1;
  }

  end(context: RequestContext): void {
    this.#running -= 1;
    const ms = performance.now() - context.started;
    const from = context.from ?? 'gateway';
    this.#requests.add(1, context.kind, context.status, from);
    this.#seconds.observe({ kind: context.kind }, ms / 1000);
    if (context.bytes > 0) this.#bytes.add(context.bytes, from);
    if (context.cut !== null) this.#cut.inc({ reason: context.cut });
    const level = context.kind === 'health' ? 'debug' : 'info';
    if (!this.#log.isLevelEnabled(level)) return;
    const { target } = context;
    // One shape for all lines; what is undefined is left out. A request that is no pull is shown by its path, never with its query: people
    // paste secrets into those.
    this.#log[level](
      {
        requestId: context.id,
        method: context.method,
        host: context.host,
        kind: context.kind,
        path: target === null ? context.path.slice(0, PATH_SHOWN) : undefined,
        registry: target?.registry,
        repository: target?.repository,
        reference: target === null ? undefined : referenceOf(target.what),
        status: context.status,
        bytes: context.bytes,
        ms: Math.round(ms * 10) / 10,
        from: context.from ?? undefined,
        cut: context.cut ?? undefined,
        client: context.clientAddress,
        user: context.user ?? undefined,
        userAgent: context.userAgent,
      },
      'request',
    );
  }
}

/** The tag or digest that was asked for; a list of tags has neither. */
function referenceOf(what: What): string | undefined {
  switch (what.kind) {
    case 'manifest':
      return what.reference.kind === 'tag' ? what.reference.tag : what.reference.digest;
    case 'blob':
    case 'referrers':
      return what.digest;
    case 'tags':
      return undefined;
  }
}
