import { type Context, Hono } from 'hono';
import type { TableSnapshot } from '../aliases/table.ts';
import { RegistryError, renderError } from '../oci/errors.ts';
import type { Logger } from '../telemetry/log.ts';
import type { AccessPort } from './access-port.ts';
import { errorAnswer, type SmallAnswer } from './answer.ts';
import type { ExchangeKind } from './exchange.ts';
import type { EdgeApp, EdgeBindings } from './front.ts';
import { roleOf } from './host.ts';
import { renderPage } from './page.ts';
import { hostUnknown, parsePing, pathUnknown, requireRegistry } from './target.ts';

export interface AppDeps {
  readonly table: () => TableSnapshot;
  readonly access: AccessPort;
  /** True, or why the gateway is not ready. */
  readonly ready: () => true | string;
  readonly version: string;
  /** Port that clients of the HTTPS listener connect to. */
  readonly port: () => number;
  readonly log: Logger;
}

const PING_HEADERS = { 'content-type': 'application/json', 'docker-distribution-api-version': 'registry/2.0' };

/** Everything small on the registry's port: health, the ping, the page for people, and what nothing is at. Pulls go past it. */
export function createApp(deps: AppDeps): EdgeApp {
  const app = withHealth(new Hono<EdgeBindings>(), deps.ready);

  const check = async (c: Context<EdgeBindings>): Promise<void> => {
    const { exchange } = c.env;
    const grant = await deps.access.check({
      address: exchange.clientAddress,
      authorization: c.req.header('authorization'),
      host: exchange.host,
    });
    exchange.user = grant.user;
  };

  app.get('/', async (c) => {
    const table = deps.table();
    const role = roleOf(c.env.exchange.host, table);
    if (role.kind === 'unknown') throw hostUnknown(c.env.exchange.host);
    const refusal = await check(c).then(
      () => null,
      (error: unknown) => {
        if (error instanceof RegistryError) return error;
        throw error;
      },
    );
    return small(c, 'page', renderPage({ table, role, port: deps.port(), version: deps.version, refusal }));
  });

  app.get('*', async (c) => {
    const { exchange } = c.env;
    const table = deps.table();
    const role = roleOf(exchange.host, table);
    if (role.kind === 'unknown') throw hostUnknown(exchange.host);
    const ping = parsePing(exchange.path);
    if (ping === null || (ping.registry !== undefined && role.kind === 'alias')) throw pathUnknown(exchange.path);
    exchange.kind = 'ping';
    const registry = ping.registry === undefined ? undefined : requireRegistry(ping.registry, table);
    await check(c);
    const ns = c.req.query('ns')?.toLowerCase();
    const namespace = role.kind === 'alias' ? role.alias.registry : (registry ?? ns);
    return small(c, 'ping', {
      status: 200,
      headers:
        ns !== undefined && namespace !== undefined && table.registries.has(namespace)
          ? { ...PING_HEADERS, 'oci-namespace': namespace }
          : PING_HEADERS,
      body: '{}',
    });
  });

  return withErrors(app, deps.log);
}

/** Liveness and readiness, on both ports, whatever the host. */
export function withHealth(app: EdgeApp, ready: AppDeps['ready']): EdgeApp {
  app.get('/healthz', (c) => small(c, 'health', text(200, 'ok\n')));
  app.get('/readyz', (c) => {
    const state = ready();
    return small(c, 'health', state === true ? text(200, 'ready\n') : text(503, `not ready: ${state}\n`));
  });
  return app;
}

/** Errors and paths that nothing is at, rendered like everywhere. */
export function withErrors(app: EdgeApp, log: Logger): EdgeApp {
  app.notFound((c) => small(c, c.env.exchange.kind, renderError(pathUnknown(c.env.exchange.path))));
  app.onError((error, c) => small(c, c.env.exchange.kind, errorAnswer(error, c.env.exchange, log)));
  return app;
}

export function small(c: Context<EdgeBindings>, kind: ExchangeKind, answer: SmallAnswer): Response {
  const { exchange } = c.env;
  const body = typeof answer.body === 'string' ? Buffer.from(answer.body) : Buffer.from(answer.body);
  exchange.kind = kind;
  exchange.status = answer.status;
  exchange.bytes = exchange.method === 'HEAD' ? 0 : body.length;
  return new Response(body, {
    status: answer.status,
    headers: { ...answer.headers, 'content-length': String(body.length) },
  });
}

export function text(status: number, body: string): SmallAnswer {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }, body };
}
