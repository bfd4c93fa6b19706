import { readFileSync } from 'node:fs';
import { getCACertificates, type PeerCertificate } from 'node:tls';
import { parseAuthorities } from '../kit/authorities.ts';
import { OperatorError } from '../kit/operator-error.ts';

/** The `sslmode`s of libpq, in its words (https://www.postgresql.org/docs/current/libpq-ssl.html). */
const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof SSL_MODES)[number];

/** Parameters of the URL that are understood; any other is refused, so that none is believed to hold that does not. */
const PARAMETERS = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'host', 'port', 'user', 'password', 'dbname'];
const DEFAULT_PORT = 5432;

/** Where a database is, and how it is spoken to. */
export interface Target {
  /** A host name, an address, or the folder of a Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** Of the URL itself; null where it has none. */
  readonly password: string | null;
  readonly sslMode: SslMode;
  /** Files in PEM: who may have signed the server's certificate, and this client's own with its key. */
  readonly sslRootCert: string | null;
  readonly sslCert: string | null;
  readonly sslKey: string | null;
}

/**
 * Reads `postgres://user@host:port/database?sslmode=verify-full&sslrootcert=/etc/ca.crt`, as libpq does: `?host=/run/postgresql` is a Unix socket,
 * the mode without a word is `prefer`.
 * @throws {OperatorError} `CONFIG_INVALID`; the URL's password is not in the message
 */
export function parseTarget(text: string): Target {
  if (!URL.canParse(text)) throw invalid('it is no URL');
  const url = new URL(text);
  if (!['postgres:', 'postgresql:'].includes(url.protocol)) throw invalid('it has to begin with postgres://');
  const parameters = url.searchParams;
  const unknown = [...parameters.keys()].filter((name) => !PARAMETERS.includes(name));
  if (unknown.length > 0) {
    throw invalid(`${unknown.join(', ')} is not understood; what is: ${PARAMETERS.join(', ')}`);
  }
  const sslMode = (parameters.get('sslmode') ?? 'prefer') as SslMode;
  if (!SSL_MODES.includes(sslMode)) throw invalid(`sslmode is one of ${SSL_MODES.join(', ')}`);
  const user = parameters.get('user') ?? decode(url.username);
  if (user === '') throw invalid('it names no user: postgres://USER@HOST/DATABASE');
  const host = parameters.get('host') ?? decode(url.hostname).replace(/^\[(.*)\]$/, '$1');
  if (host.includes(',')) throw invalid('it has several hosts; give one name that leads to the primary');
  if (host === '') throw invalid('it names no host: postgres://USER@HOST/DATABASE, or ?host=/run/postgresql');
  const password = parameters.get('password') ?? (decode(url.password) || null);
  const port = Number(parameters.get('port') ?? (url.port || DEFAULT_PORT));
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw invalid('its port is no port');
  return {
    host,
    port,
    user,
    // As libpq: a database of the user's name.
    database: parameters.get('dbname') ?? (decode(url.pathname.slice(1)) || user),
    password,
    sslMode,
    sslRootCert: parameters.get('sslrootcert'),
    sslCert: parameters.get('sslcert'),
    sslKey: parameters.get('sslkey'),
  };
}

/** The target in words for a person: without user and password. */
export function targetInWords({ host, port, database }: Target): string {
  return host.startsWith('/') ? `${database} at ${host}` : `${database} at ${host}:${port}`;
}

/** What `tls.connect` is given; the key is not enumerable where a client is printed. */
export interface TlsOptions {
  readonly ca?: string[];
  readonly cert?: string;
  readonly key?: string;
  readonly rejectUnauthorized: boolean;
  readonly allowPartialTrustChain?: boolean;
  readonly checkServerIdentity?: (host: string, certificate: PeerCertificate) => Error | undefined;
}

/**
 * How TLS is spoken with a target; false where it is not. `require` looks at no certificate unless `sslrootcert` is given, `verify-ca` at who
 * signed it, `verify-full` at its name, too. Without `sslrootcert`, or where it is `system`, those that Node and this machine trust have signed it.
 * @throws {OperatorError} `CONFIG_INVALID` where a file cannot be read
 */
export function tlsOf(target: Target): TlsOptions | false {
  const { sslMode, sslRootCert, sslCert, sslKey } = target;
  // A Unix socket does not leave the machine; PostgreSQL has no TLS there.
  if (sslMode === 'disable' || target.host.startsWith('/')) return false;
  const own = {
    ...(sslCert === null ? {} : { cert: readPem('sslcert', sslCert) }),
    ...(sslKey === null ? {} : { key: readPem('sslkey', sslKey) }),
  };
  const verifies = sslMode.startsWith('verify-') || (sslMode === 'require' && sslRootCert !== null);
  if (!verifies) return { ...own, rejectUnauthorized: false };
  const roots =
    sslRootCert === null || sslRootCert === 'system'
      ? [...new Set([...getCACertificates('default'), ...getCACertificates('system')])]
      : [parseRoots(sslRootCert, readPem('sslrootcert', sslRootCert))];
  return {
    ...own,
    ca: roots,
    rejectUnauthorized: true,
    allowPartialTrustChain: true,
    ...(sslMode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  };
}

/** Whether what is unencrypted will do where the server has no TLS. */
export function mayBePlain({ sslMode }: Target): boolean {
  return sslMode === 'allow' || sslMode === 'prefer';
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw invalid('a % in it is not followed by two hex digits; the sign itself is written %25');
  }
}

function parseRoots(path: string, pem: string): string {
  try {
    return parseAuthorities(pem);
  } catch (error) {
    throw invalid(`the file of sslrootcert, ${path}, ${error instanceof Error ? error.message : String(error)}`);
  }
}

function readPem(parameter: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw invalid(`the file of ${parameter} cannot be read: ${reason}`);
  }
}

function invalid(reason: string): OperatorError {
  return new OperatorError(
    'CONFIG_INVALID',
    `the URL of the database (database, GATEWAY_DATABASE) is not valid: ${reason}`,
    {
      next: 'write it like postgres://gateway@db.example.com/gateway?sslmode=verify-full',
    },
  );
}
