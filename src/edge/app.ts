import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { type Context, Hono, type Next } from 'hono';
import type { TableSnapshot } from '../aliases/table.ts';
import type { CertificateService } from '../certs/service.ts';
import { clientConfiguration, configurationText } from '../clients/configuration.ts';
import { CLIENT_KINDS, type ClientFacts, type PublicAddress, publicFacts } from '../clients/facts.ts';
import { parseAddress } from '../kit/networks.ts';
import { RegistryError, renderError } from '../oci/errors.ts';
import { REGISTRY_HEADERS } from '../oci/response-headers.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Service } from './connections.ts';
import { languageOf, renderPage } from './page.ts';
import { hostUnknown, nsOf, registryOfNs, registryOfPath, roleOf } from './registry-name.ts';
import type { AccessPort, RequestContext, RequestKind } from './request-context.ts';
import { errorAnswer, type SmallAnswer, textAnswer } from './response-writer.ts';
import { parsePing, pathUnknown } from './target.ts';

/** What Hono's handlers get beside the request. */
interface EdgeBindings {
  Bindings: { readonly context: RequestContext };
}
export type EdgeApp = Hono<EdgeBindings>;
type Handler = (c: Context<EdgeBindings>) => Response | Promise<Response>;

export interface AppDeps {
  readonly table: () => TableSnapshot;
  readonly access: AccessPort;
  /** Null with `tls.mode: off`. */
  readonly certificates: Pick<CertificateService, 'httpChallenge'> | null;
  /** The internal CA's root certificate as a PEM file; null with another `tls.mode`. */
  readonly rootFile: string | null;
  /** True, or why the gateway is not ready. */
  readonly ready: () => true | string;
  /** Port that clients of HTTPS connect to. */
  readonly port: () => number;
  /** How clients are told to reach the gateway, who may come by another way (`publicUrl`). */
  readonly address: () => PublicAddress;
  /** What clients are configured with, by whether they must log in. */
  readonly clientFacts: (credentials: boolean) => Promise<ClientFacts>;
  readonly metrics: Pick<Metrics, 'text' | 'contentType'>;
  readonly version: string;
  readonly log: Logger;
}

const PING_HEADERS = { ...REGISTRY_HEADERS, 'content-type': 'application/json' };

/**
 * Everything small, on every port, by what the request's listener offers. Methods other than GET are refused before it; a HEAD comes as a
 * GET, and its body is left out where the answer is written. Pulls never come here: the dispatcher serves them.
 */
export function createApp(deps: AppDeps): EdgeApp {
  const app: EdgeApp = new Hono<EdgeBindings>();

  app.get('/healthz', (c) => respond(c, 'health', textAnswer(200, 'ok\n')));
  app.get('/readyz', (c) => {
    const state = deps.ready();
    return respond(c, 'health', state === true ? textAnswer(200, 'ready\n') : textAnswer(503, `not ready: ${state}\n`));
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
    app.get(
      '/ca.crt',
      on('redirect', async (c) => {
        requireRole(c, deps.table());
        return respond(c, 'page', await rootAnswer(rootFile));
      }),
    );
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

  app.get(
    '/',
    on('registry', async (c) => {
      const table = deps.table();
      const role = requireRole(c, table);
      const refusal = await checkAccess(c, deps.access).then(
        () => null,
        (error: unknown) => {
          if (error instanceof RegistryError) return error;
          throw error;
        },
      );
      const language = languageOf(c.req.query('lang'), c.req.header('accept-language'));
      return respond(
        c,
        'page',
        renderPage({ table, role, language, address: deps.address(), version: deps.version, refusal }),
      );
    }),
  );

  app.get(
    '/client/:kind',
    on('registry', async (c) => {
      requireRole(c, deps.table());
      await checkAccess(c, deps.access);
      const kind = CLIENT_KINDS.find((one) => one === c.req.param('kind'));
      if (kind === undefined) {
        return respond(c, 'page', textAnswer(404, `no such client; there are: ${CLIENT_KINDS.join(', ')}\n`));
      }
      const facts = await deps.clientFacts(c.env.context.user !== null);
      const configuration = clientConfiguration(kind, facts);
      if (c.req.query('json') === undefined)
        return respond(c, 'page', textAnswer(200, configurationText(configuration)));
      // For `gateway client KIND --gateway URL` on a client's machine.
      const { status, headers, body } = textAnswer(
        200,
        JSON.stringify({ ...configuration, facts: publicFacts(facts) }),
      );
      return respond(c, 'page', { status, headers: { ...headers, 'content-type': 'application/json' }, body });
    }),
  );

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

/** A handler for the listeners that offer `service`; others go on to the next route. */
function on(service: Service, handler: Handler) {
  return (c: Context<EdgeBindings>, next: Next) => (c.env.context.service === service ? handler(c) : next());
}

/** The answer as Hono wants it, and what the access log says of it. */
function respond(c: Context<EdgeBindings>, kind: RequestKind, { status, headers, body }: SmallAnswer): Response {
  const { context } = c.env;
  const bytes = Buffer.byteLength(body);
  context.kind = kind;
  context.status = status;
  context.bytes = context.method === 'HEAD' ? 0 : bytes;
  return new Response(typeof body === 'string' ? body : Buffer.from(body), {
    status,
    headers: { ...headers, 'content-length': String(bytes) },
  });
}

/** @throws {RegistryError} hostUnknown */
function requireRole(c: Context<EdgeBindings>, table: TableSnapshot) {
  const { host } = c.env.context;
  const role = roleOf(host, table);
  if (role.kind === 'unknown') throw hostUnknown(host);
  return role;
}

/** @throws {RegistryError} unauthorized, clientDenied, tooManyRequests */
async function checkAccess(c: Context<EdgeBindings>, access: AccessPort): Promise<void> {
  const { context } = c.env;
  const grant = await access.check({
    address: context.clientAddress,
    authorization: c.req.header('authorization'),
    host: context.authority,
  });
  context.user = grant.user;
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
 * The same host and path over HTTPS. An address that the client did not connect to becomes the domain, so that a redirect
 * never leads to wherever a Host header says.
 */
function redirectLocation(
  context: Pick<RequestContext, 'host' | 'path' | 'query' | 'connection'>,
  table: TableSnapshot,
  port: number,
): string {
  let host = context.host;
  if (host === '') host = table.domain;
  if (isIP(host) !== 0 && !isOwnAddress(host, context.connection.raw.localAddress)) host = table.domain;
  if (isIP(host) === 6) host = `[${host}]`;
  // Node lets bytes beyond ASCII through in a path; a Location must not carry them.
  const path = `${context.path}${context.query === '' ? '' : `?${context.query}`}`.replace(
    /[^\x21-\x7e]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
  return `https://${host}${port === 443 ? '' : `:${port}`}${path}`;
}

function isOwnAddress(host: string, local: string | undefined): boolean {
  const asked = parseAddress(host);
  if (asked === null) return false;
  return asked.range() === 'loopback' || (local !== undefined && asked.toString() === parseAddress(local)?.toString());
}
