import { generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { signCertificate } from '../../src/certs/x509.ts';

/** A token service as the distribution project specifies it (*Token Authentication*), whose tokens docker-registry accepts. */
export interface TokenServer {
  readonly realm: string;
  readonly service: string;
  readonly issuer: string;
  /** PEM, for docker-registry's `rootcertbundle`. */
  readonly bundle: string;
  /** Query and Authorization of each request. */
  readonly asked: { readonly scope: string | null; readonly authorization: string | undefined }[];
  close(): Promise<void>;
}

/** With `username` only who sends it and its password gets a token, else everybody does. */
export async function startTokenServer(options: { username?: string; password?: string } = {}): Promise<TokenServer> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const now = Date.now();
  const certificate = signCertificate(
    {
      notBefore: now - 3_600_000,
      notAfter: now + 24 * 3_600_000,
      publicKey,
      commonName: 'token service',
      names: [],
      ca: true,
    },
    { key: privateKey, publicKey, commonName: 'token service' },
  ).toString();
  const service = 'registry of this test';
  const issuer = 'token service';
  const asked: { scope: string | null; authorization: string | undefined }[] = [];
  const wanted =
    options.username === undefined
      ? undefined
      : `Basic ${Buffer.from(`${options.username}:${options.password}`).toString('base64')}`;

  const server = createServer((request, response) => {
    const query = new URL(request.url ?? '/', 'http://localhost').searchParams;
    const { authorization } = request.headers;
    asked.push({ scope: query.get('scope'), authorization });
    if (query.get('service') !== service || (wanted !== undefined && authorization !== wanted)) {
      response.writeHead(401, { 'content-type': 'application/json' }).end('{"errors":[{"code":"UNAUTHORIZED"}]}');
      return;
    }
    const token = jwt(privateKey, certificate, {
      iss: issuer,
      sub: '',
      aud: service,
      exp: Math.floor(Date.now() / 1000) + 300,
      nbf: Math.floor(Date.now() / 1000) - 60,
      iat: Math.floor(Date.now() / 1000),
      jti: randomUUID(),
      access: query.getAll('scope').flatMap(accessOf),
    });
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ token, expires_in: 300 }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    realm: `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`,
    service,
    issuer,
    bundle: certificate,
    asked,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** `repository:library/hub:pull` as the claim has it; only pulls are given. */
function accessOf(scope: string): { type: string; name: string; actions: string[] }[] {
  const [, type = '', name = '', actions = ''] = scope.match(/^([^:]+):(.+):([^:]+)$/) ?? [];
  return actions.split(',').includes('pull') ? [{ type, name, actions: ['pull'] }] : [];
}

/** ES256 with the certificate in `x5c` (RFC 7515): the one way that docker-registry finds the key without an id of its own making. */
function jwt(key: KeyObject, certificate: string, claims: object): string {
  const der = certificate.replace(/-----[^-]+-----|\s/g, '');
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = `${part({ alg: 'ES256', typ: 'JWT', x5c: [der] })}.${part(claims)}`;
  return `${body}.${sign('sha256', Buffer.from(body), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}
