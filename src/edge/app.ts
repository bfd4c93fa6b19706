import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { Hono } from 'hono';
import type { TableSnapshot } from '../aliases/table.ts';
import type { CertificateService } from '../certs/service.ts';
import { bracketed, parseAddress } from '../kit/networks.ts';
import { RegistryError, renderError } from '../oci/errors.ts';
import { REGISTRY_HEADERS } from '../oci/response-headers.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { checkAccess, type EdgeApp, type EdgeContext, on, requireRole, respond } from './handlers.ts';
import { addPageRoutes, type PageDeps } from './page/routes.ts';
import { nsOf, registryOfNs, registryOfPath } from './registry-name.ts';
import type { RequestContext } from './request-context.ts';
import { errorAnswer, type SmallAnswer, textAnswer } from './response-writer.ts';
import { parsePing, pathUnknown } from './target.ts';

export interface AppDeps extends PageDeps {
  /** Null with `tls.mode: off`. */
  readonly certificates: Pick<CertificateService, 'httpChallenge'> | null;
  /** The internal CA's root certificate as a PEM file; null with another `tls.mode`. */
  readonly rootFile: string | null;
  /** True, or why the gateway is not ready. */
  readonly ready: () => true | string;
  /** What whoever asks whether it is ready should know although it is. */
  readonly remark?: (() => string | null) | undefined;
  /** It is ending, and others do its work: said to those who ask for this very node. */
  readonly draining?: (() => boolean) | undefined;
  /** Port that clients of HTTPS connect to: of `publicUrl`, else that of the listener. */
  readonly port: () => number;
  readonly metrics: Pick<Metrics, 'text' | 'contentType'>;
  readonly log: Logger;
}

const PING_HEADERS = { ...REGISTRY_HEADERS, 'content-type': 'application/json' };

/**
 * Everything small, on every port, by what the request's listener offers. Methods other than GET are refused before it; a HEAD comes as a
 * GET, and its body is left out where the answer is written. Pulls never come here: the dispatcher serves them.
 */
export function createApp(deps: AppDeps): EdgeApp {
  const app: EdgeApp = new Hono();

  app.get('/healthz', (c) => respond(c, 'health', textAnswer(200, 'ok\n')));
  app.get('/readyz', (c) => {
    const state = deps.ready();
    if (state !== true) return respond(c, 'health', textAnswer(503, `not ready: ${state}\n`));
    if (c.req.query('node') !== undefined && deps.draining?.() === true) {
      return respond(c, 'health', textAnswer(503, 'not ready: this node is ending, and others serve\n'));
    }
    const remark = deps.remark?.() ?? null;
    return respond(c, 'health', textAnswer(200, remark === null ? 'ready\n' : `ready\n${remark}\n`));
  });

  app.get(
    '/metrics',
    on('metrics', async (c) => {
      const headers = { 'content-type': deps.metrics.contentType };
      return respond(c, 'health', { status: 200, headers, body: await deps.metrics.text() });
    }),
  );

  // RFC 8555 §8.3. A token that is not pending is no redirect: HTTPS has no answer for it either.
  app.get(
    '/.well-known/acme-challenge/:token',
    on('redirect', (c) => {
      const proof = deps.certificates?.httpChallenge(c.req.param('token') ?? '') ?? null;
      if (proof === null) throw pathUnknown(c.env.context.path);
      const headers = { 'content-type': 'application/octet-stream' };
      return respond(c, 'challenge', { status: 200, headers, body: proof });
    }),
  );

  const { rootFile } = deps;
  if (rootFile !== null) {
    // By http too: whoever does not trust the certificate yet cannot do better, and compares the fingerprint.
    const root = async (c: EdgeContext) => {
      requireRole(c, deps.table());
      return respond(c, 'page', await rootAnswer(rootFile));
    };
    app.get('/ca.crt', on('redirect', root));
    app.get('/ca.crt', on('registry', root));
  }

  app.get(
    '*',
    on('redirect', (c) => {
      const table = deps.table();
      requireRole(c, table);
      const location = redirectLocation(c.env.context, table, deps.port());
      const answer = textAnswer(308, `this gateway speaks HTTPS: ${location}\n`);
      return respond(c, 'redirect', { ...answer, headers: { ...answer.headers, location } });
    }),
  );

  addPageRoutes(app, deps);

  app.get(
    '*',
    on('registry', async (c) => {
      const { context } = c.env;
      const table = deps.table();
      const role = requireRole(c, table);
      const ping = parsePing(context.path);
      if (ping === null || (ping.registry !== undefined && role.kind === 'alias')) throw pathUnknown(context.path);
      context.kind = 'ping';
      const registry = ping.registry === undefined ? undefined : registryOfPath(ping.registry, context, table);
      await checkAccess(c, deps.access);
      const ns = nsOf(c.req.query('ns'));
      const namespace = role.kind === 'alias' ? role.alias.registry : (registry ?? namespaceOf(ns, context, table));
      const headers = ns && namespace !== null ? { ...PING_HEADERS, 'oci-namespace': namespace } : PING_HEADERS;
      return respond(c, 'ping', { status: 200, headers, body: '{}' });
    }),
  );

  app.notFound((c) => respond(c, c.env.context.kind, renderError(pathUnknown(c.env.context.path))));
  app.onError((error, c) => respond(c, c.env.context.kind, errorAnswer(error, c.env.context, deps.log)));
  return app;
}

/** A ping is answered whatever it names: the pull that follows is refused in words. */
function namespaceOf(ns: string | undefined, context: RequestContext, table: TableSnapshot): string | null {
  try {
    return registryOfNs(ns, context, table);
  } catch {
    return null;
  }
}

async function rootAnswer(file: string): Promise<SmallAnswer> {
  const body = await readFile(file).catch((cause: unknown) => {
    throw new RegistryError('unavailable', { facts: { reason: 'its root certificate is not written yet' }, cause });
  });
  const headers = {
    'content-type': 'application/x-pem-file',
    'content-disposition': 'attachment; filename="ca.crt"',
    'cache-control': 'no-store',
  };
  return { status: 200, headers, body };
}

/**
 * The same host and path over HTTPS. An address that the client did not connect to becomes the gateway's own name, so that a redirect
 * never leads to wherever a Host header says.
 */
function redirectLocation(
  context: Pick<RequestContext, 'host' | 'path' | 'query' | 'connection'>,
  table: TableSnapshot,
  port: number,
): string {
  let host = context.host;
  const own = table.publicHost ?? table.domain;
  if (host === '') host = own;
  if (isIP(host) !== 0 && host !== own && !isOwnAddress(host, context.connection.raw.localAddress)) host = own;
  // Node lets bytes beyond ASCII through in a path; a Location must not carry them.
  const path = `${context.path}${context.query === '' ? '' : `?${context.query}`}`.replace(
    /[^\x21-\x7e]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
  return `https://${bracketed(host)}${port === 443 ? '' : `:${port}`}${path}`;
}

function isOwnAddress(host: string, local: string | undefined): boolean {
  const asked = parseAddress(host);
  if (asked === null) return false;
  return asked.range() === 'loopback' || (local !== undefined && asked.toString() === parseAddress(local)?.toString());
}
