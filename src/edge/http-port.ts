import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { Hono } from 'hono';
import ipaddr from 'ipaddr.js';
import type { TableSnapshot } from '../aliases/table.ts';
import type { CertificateService } from '../certs/service.ts';
import type { Config } from '../config/config.ts';
import { RegistryError } from '../oci/errors.ts';
import type { Logger } from '../telemetry/log.ts';
import { small, text, withErrors, withHealth } from './app.ts';
import type { Exchange } from './exchange.ts';
import type { EdgeApp, EdgeBindings } from './front.ts';
import { roleOf } from './host.ts';
import { hostUnknown, pathUnknown } from './target.ts';

export interface HttpPortDeps {
  readonly config: Pick<Config, 'dataDir' | 'tls'>;
  readonly table: () => TableSnapshot;
  readonly certificates: Pick<CertificateService, 'httpChallenge'> | null;
  readonly ready: () => true | string;
  /** Port that the HTTPS listener really has. */
  readonly httpsPort: () => number;
  readonly log: Logger;
}

/** `listen.http` beside TLS: ACME HTTP-01 first of all, health, the internal CA's root, else a redirect to HTTPS. */
export function createHttpPort(deps: HttpPortDeps): EdgeApp {
  const app: EdgeApp = new Hono<EdgeBindings>();

  // RFC 8555 §8.3. A token that is not pending is not redirected: nothing on the HTTPS side would know it either.
  app.get('/.well-known/acme-challenge/:token', (c) => {
    const answer = deps.certificates?.httpChallenge(c.req.param('token')) ?? null;
    if (answer === null) throw pathUnknown(c.env.exchange.path);
    return small(c, 'challenge', {
      status: 200,
      headers: { 'content-type': 'application/octet-stream' },
      body: answer,
    });
  });

  withHealth(app, deps.ready);

  if (deps.config.tls.mode === 'internal') {
    app.get('/ca.crt', async (c) => {
      const { exchange } = c.env;
      if (roleOf(exchange.host, deps.table()).kind === 'unknown') throw hostUnknown(exchange.host);
      const pem = await readFile(join(deps.config.dataDir, 'ca.crt')).catch((cause: unknown) => {
        throw new RegistryError('unavailable', { facts: { reason: 'its root certificate is not written yet' }, cause });
      });
      return small(c, 'page', {
        status: 200,
        headers: {
          'content-type': 'application/x-pem-file',
          'content-disposition': 'attachment; filename="ca.crt"',
          'cache-control': 'no-store',
        },
        body: pem,
      });
    });
  }

  app.get('*', (c) => {
    const { exchange } = c.env;
    const location = redirectTarget(exchange, deps.table(), deps.httpsPort());
    if (location === null) throw hostUnknown(exchange.host);
    const answer = text(308, `this gateway speaks HTTPS: ${location}\n`);
    return small(c, 'redirect', { ...answer, headers: { ...answer.headers, location } });
  });

  return withErrors(app, deps.log);
}

/**
 * The same host and path over HTTPS; null for a host that is not ours. An address that the client did not connect to
 * becomes the domain: a redirect must not lead wherever a Host header says.
 */
function redirectTarget(
  exchange: Pick<Exchange, 'host' | 'path' | 'query' | 'connection'>,
  table: TableSnapshot,
  port: number,
): string | null {
  const role = roleOf(exchange.host, table);
  if (role.kind === 'unknown') return null;
  let host = exchange.host;
  if (host === '') host = table.domain;
  if (isIP(host) !== 0 && !isOwnAddress(host, exchange.connection.raw.localAddress)) host = table.domain;
  if (isIP(host) === 6) host = `[${host}]`;
  // Node lets bytes beyond ASCII through in a path; a Location must not carry them.
  const path = `${exchange.path}${exchange.query === '' ? '' : `?${exchange.query}`}`.replace(
    /[^\x21-\x7e]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
  return `https://${host}${port === 443 ? '' : `:${port}`}${path}`;
}

function isOwnAddress(host: string, local: string | undefined): boolean {
  const asked = ipaddr.process(host);
  return asked.range() === 'loopback' || (local !== undefined && asked.toString() === ipaddr.process(local).toString());
}
