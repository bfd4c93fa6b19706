import { once } from 'node:events';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import https from 'node:https';
import { connect as connectTcp } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { AccessPort } from '../../src/edge/request-context.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import type { Reply } from '../../src/proxy/reply.ts';
import { type EdgeBed, startEdgeBed } from '../support/edge-bed.ts';
import { type Answer, parseAnswer, rawExchange, tlsClient } from '../support/raw-client.ts';

const D = `sha256:${'a'.repeat(64)}`;

/** One request over TLS, written by hand: header and path go out as they are. */
async function ask(bed: EdgeBed, line: string, headers: Record<string, string> = {}, body = ''): Promise<Answer> {
  const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
  return parseAnswer(await rawExchange(0, requestOf(line, headers, body), socket));
}

async function askPlain(port: number, line: string, headers: Record<string, string> = {}, body = ''): Promise<Answer> {
  return parseAnswer(await rawExchange(port, requestOf(line, headers, body)));
}

function requestOf(line: string, headers: Record<string, string>, body: string): string {
  const all = { Host: 'localhost', Connection: 'close', ...headers };
  return `${line} HTTP/1.1\r\n${Object.entries(all)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n${body}`;
}

const codeOf = (answer: Answer): string => JSON.parse(answer.body).errors[0].code;

describe('the registry port', () => {
  let bed: EdgeBed;
  beforeAll(async () => {
    bed = await startEdgeBed();
  });
  afterAll(() => bed.stop());
  beforeEach(() => {
    bed.registry.reset();
  });

  test.each(['/v2/', '/v2', '/quay.io/v2/', '/quay.io/v2'])('ping %s', async (path) => {
    for (const method of ['GET', 'HEAD']) {
      const answer = await ask(bed, `${method} ${path}`);
      expect(answer.status).toBe(200);
      expect(answer.headers).toMatchObject({
        'docker-distribution-api-version': 'registry/2.0',
        'content-length': '2',
      });
      expect(answer.headers['content-type']).toBe('application/json');
      expect(answer.body).toBe(method === 'GET' ? '{}' : '');
    }
  });

  test('pings that lead nowhere', async () => {
    expect((await ask(bed, 'GET /nope.example/v2/')).status).toBe(403);
    expect((await ask(bed, 'GET /v2/', { Host: 'nope.localhost' })).status).toBe(404);
    expect((await ask(bed, 'GET /quay.io/v2/', { Host: 'hub.localhost' })).status).toBe(404);
  });

  test('a pull reaches the core with what changes an answer, and nothing else', async () => {
    const answer = await ask(bed, `GET /v2/quay.io/org/app/blobs/${D}?ns=docker.io`, {
      Accept: 'a/b, c/d',
      Range: 'bytes=1-2',
      'If-Range': '"x"',
      'If-None-Match': '"y"',
      Cookie: 'secret',
    });
    expect(answer.status).toBe(200);
    expect(answer.headers['docker-distribution-api-version']).toBe('registry/2.0');
    expect(answer.headers['oci-namespace']).toBe('quay.io');
    expect(answer.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
    const [pull] = bed.registry.pulls;
    expect(pull).toMatchObject({
      target: { registry: 'quay.io', repository: 'org/app', what: { kind: 'blob', digest: D } },
      method: 'GET',
      accept: 'a/b, c/d',
      range: 'bytes=1-2',
      ifRange: '"x"',
      ifNoneMatch: '"y"',
      authenticated: false,
      client: '192.0.2.1',
      base: '/v2/quay.io/',
      ns: 'docker.io',
    });
    expect(JSON.stringify(pull)).not.toContain('secret');
  });

  test('without ns no OCI-Namespace', async () => {
    expect((await ask(bed, 'GET /v2/a/manifests/1')).headers).not.toHaveProperty('oci-namespace');
    expect((await ask(bed, 'GET /v2/a/manifests/1?ns=quay.io')).headers['oci-namespace']).toBe('quay.io');
  });

  test('HEAD has the headers and no body', async () => {
    const answer = await ask(bed, 'HEAD /v2/a/manifests/1');
    expect(answer).toMatchObject({ status: 200, body: '' });
    expect(answer.headers['content-length']).toBe('2');
  });

  test('errors: status, code and a body that JSON can read', async () => {
    for (const [line, host, status, code] of [
      ['GET /v2/Bad/manifests/1', 'localhost', 400, 'NAME_INVALID'],
      ['GET /v2/a/manifests/-x', 'localhost', 404, 'MANIFEST_UNKNOWN'],
      ['GET /v2/a/blobs/x', 'localhost', 400, 'DIGEST_INVALID'],
      ['GET /v2/nope.example/a/manifests/1', 'localhost', 403, 'DENIED'],
      ['GET /v2/a/manifests/1', 'nope.localhost', 404, 'NAME_UNKNOWN'],
      ['GET /', 'nope.localhost', 404, 'NAME_UNKNOWN'],
      ['GET /nothing', 'localhost', 404, 'NAME_UNKNOWN'],
      ['GET /v2/_catalog', 'localhost', 404, 'NAME_UNKNOWN'],
    ] as const) {
      const answer = await ask(bed, line, { Host: host });
      expect([line, answer.status, codeOf(answer)]).toEqual([line, status, code]);
      expect(answer.headers['content-type']).toBe('application/json');
      expect(answer.headers['x-request-id']).toBeDefined();
    }
    expect(bed.registry.pulls).toEqual([]);
  });

  test('every answer, in every shape of path, says what a browser must not do with it', async () => {
    const safe = (answer: Answer) => [
      answer.headers['x-content-type-options'],
      /^default-src 'none';.*frame-ancestors 'none'.*; sandbox$/.test(
        String(answer.headers['content-security-policy']),
      ),
    ];
    const notModified = { status: 304, headers: { etag: '"x"' }, body: null, from: 'cache' } as const;
    for (const [line, status, reply] of [
      ['GET /v2/', 200],
      ['GET /v2', 200],
      ['GET /quay.io/v2/', 200],
      ['GET /v2/a/manifests/1', 200],
      ['HEAD /v2/a/manifests/1', 200],
      ['GET /v2/a/manifests/1', 304, notModified],
      ['GET /v2/quay.io/a/b/tags/list', 200],
      ['GET /quay.io/v2/a/b/manifests/1', 200],
      ['GET /v2/quay.io/v2/a/b/manifests/1', 200],
      [`GET /v2/a/b/blobs/${D}?ns=quay.io`, 200],
      [`GET /v2/a/b/referrers/${D}`, 200],
      ['GET /v2/_catalog', 404],
      ['GET /v2/Bad/manifests/1', 400],
      ['GET /v2/a%zz/manifests/1', 400],
      ['POST /v2/a/b/blobs/uploads/', 405],
      ['GET /v2/nope.example/a/manifests/1', 403],
      ['GET /nope.example/v2/', 403],
    ] as const) {
      bed.registry.reset();
      if (reply !== undefined) bed.registry.answer = () => reply;
      const answer = await ask(bed, line);
      expect([line, answer.status, ...safe(answer)]).toEqual([line, status, 'nosniff', true]);
    }
    const redirect = await askPlain(bed.httpPort, 'GET /v2/a/manifests/1', { Host: 'localhost' });
    expect([redirect.status, ...safe(redirect)]).toEqual([308, 'nosniff', true]);
    bed.registry.answer = () => {
      throw new Error('inside');
    };
    expect(safe(await ask(bed, 'GET /v2/a/manifests/1'))).toEqual(['nosniff', true]);
  });

  test("the core's refusal arrives as it is, HEAD without its body", async () => {
    bed.registry.answer = () => {
      throw new RegistryError('upstreamRateLimited', { facts: { registry: 'docker.io' }, retryAfter: 7 });
    };
    const answer = await ask(bed, 'GET /v2/a/manifests/1');
    expect([answer.status, codeOf(answer), answer.headers['retry-after']]).toEqual([429, 'TOOMANYREQUESTS', '7']);
    const head = await ask(bed, 'HEAD /v2/a/manifests/1');
    expect([head.status, head.body]).toEqual([429, '']);
    bed.registry.answer = () => {
      throw new Error('postgres://user:hunter2@db is down');
    };
    const broken = await ask(bed, 'GET /v2/a/manifests/1');
    expect(broken.status).toBe(500);
    expect(broken.body).toContain(broken.headers['x-request-id']);
    expect(broken.body).not.toContain('hunter2');
  });

  test('a manifest that is asked for again and again is the same, byte for byte, over HTTP/1.1 and HTTP/2', async () => {
    const body = Uint8Array.from({ length: 1024 }, (_, n) => n % 256);
    // As the core answers the first time, and as the manifest cache does from then on.
    const fresh: Reply = { status: 200, headers: { 'content-length': '1024' }, body, from: 'cache' };
    const kept: Reply = { ...fresh, text: Buffer.from(body).toString('latin1') };
    const { root } = bed.certificates;
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: root });
    for (let n = 0; n < 4; n++) {
      bed.registry.answer = () => (n < 2 ? fresh : kept);
      const request = https.get({ port: bed.httpsPort, ca: root, path: '/v2/a/manifests/1', agent: false });
      const [response] = await once(request, 'response');
      expect(Buffer.concat(await response.toArray())).toEqual(Buffer.from(body));
      const stream = session.request({ ':path': '/v2/a/manifests/1' });
      expect(Buffer.concat(await stream.toArray())).toEqual(Buffer.from(body));
    }
    session.close();
  });

  test.each(['localhost', 'nope.example', '[::1]', 'we_ird', ''])('health, whatever the host (%s)', async (host) => {
    for (const path of ['/healthz', '/readyz']) {
      expect((await ask(bed, `GET ${path}`, { Host: host })).status).toBe(200);
      expect((await askPlain(bed.httpPort, `GET ${path}`, { Host: host })).status).toBe(200);
    }
  });

  test('the page for people', async () => {
    const answer = await ask(bed, 'GET /');
    expect(answer.status).toBe(200);
    expect(answer.headers['content-type']).toContain('text/html');
    expect(answer.headers['content-security-policy']).toContain("default-src 'none'");
    expect(answer.body).toContain(`<code>localhost:${bed.httpsPort}/docker.io</code>`);
    expect(answer.body).toContain(`<code>localhost:${bed.httpsPort}/k8s.gcr.io</code>`);
    expect(answer.body).not.toMatch(/<script(?! src="\/page\.js)|@import|url\(/);
    const asked = await ask(bed, 'GET /?image=quay.io%2Forg%2Fapp');
    expect(asked.body).toContain(`docker pull localhost:${bed.httpsPort}/quay.io/org/app`);
    expect((await ask(bed, 'GET /ca.crt')).body).toContain('BEGIN CERTIFICATE');
    const head = await ask(bed, 'HEAD /', { 'If-None-Match': String(answer.headers.etag) });
    expect([head.status, head.body]).toEqual([304, '']);
    const alias = await ask(bed, 'GET /', { Host: 'k8s-gcr.localhost' });
    expect(alias.body).toContain('k8s.gcr.io');
  });

  test('absolute-form and HTTP/1.0', async () => {
    const absolute = await ask(bed, 'GET https://hub.localhost:9/v2/alpine/manifests/1', { Host: 'nope.example' });
    expect(absolute.status).toBe(200);
    expect(bed.registry.pulls[0]?.target).toMatchObject({ registry: 'docker.io', repository: 'library/alpine' });
    const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
    expect(parseAnswer(await rawExchange(0, 'GET /v2/ HTTP/1.0\r\n\r\n', socket)).status).toBe(200);
  });

  test('HTTP/1.1 without Host is a bad request; headers beyond their bound are refused', async () => {
    const bare = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
    expect(parseAnswer(await rawExchange(0, 'GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n', bare)).status).toBe(400);
    expect((await ask(bed, 'GET /v2/', { 'X-Long': 'x'.repeat(60_000) })).status).toBe(431);
  });

  test('a GET under Expect is answered', async () => {
    expect((await ask(bed, 'GET /v2/', { Expect: '100-continue' })).status).toBe(200);
  });
});

describe('405 for everything but GET and HEAD', () => {
  let bed: EdgeBed;
  beforeAll(async () => {
    bed = await startEdgeBed();
    bed.certificates.tokens.set('token', 'token.thumbprint');
  });
  afterAll(() => bed.stop());

  const METHODS = ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT', 'PROPFIND', 'BREW', 'get'];
  const PATHS = [
    '/',
    '/v2/',
    '/v2/a/blobs/uploads/',
    '/v2/a/manifests/1',
    '/quay.io/v2/a/manifests/1',
    '/nothing',
    '/healthz',
    '/readyz',
    '/metrics',
    '/.well-known/acme-challenge/token',
    '/ca.crt',
  ];

  const expect405 = (answer: Answer, what: string): void => {
    expect([what, answer.status, answer.headers.allow]).toEqual([what, 405, 'GET, HEAD']);
    expect(codeOf(answer)).toBe('UNSUPPORTED');
  };

  test.each(METHODS)('%s on every port', async (method) => {
    for (const path of PATHS) {
      const target = method === 'CONNECT' ? 'quay.io:443' : path;
      for (const host of ['localhost', 'hub.localhost', 'nope.example']) {
        expect405(await ask(bed, `${method} ${target}`, { Host: host }), `https ${method} ${path} ${host}`);
      }
      expect405(await askPlain(bed.httpPort, `${method} ${target}`), `http ${method} ${path}`);
      expect405(await askPlain(bed.metricsPort, `${method} ${target}`), `metrics ${method} ${path}`);
    }
    expect(bed.registry.pulls).toEqual([]);
  });

  test('OPTIONS *, and a request without a host', async () => {
    expect405(await ask(bed, 'OPTIONS *'), 'OPTIONS *');
    const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
    expect405(parseAnswer(await rawExchange(0, 'POST /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n', socket)), 'no host');
  });

  test('with a body that has come, one that is announced, one under Expect, a chunked one', async () => {
    expect405(await ask(bed, 'PUT /v2/a/manifests/1', { 'Content-Length': '5' }, 'hello'), 'body');
    expect405(await ask(bed, 'PUT /v2/a/manifests/1', { 'Content-Length': '500000' }, 'hello'), 'announced');
    const expected = await ask(bed, 'PUT /v2/a/manifests/1', { 'Content-Length': '5', Expect: '100-continue' });
    expect405(expected, 'expect');
    expect405(await ask(bed, 'PUT /v2/a/manifests/1', { 'Transfer-Encoding': 'chunked' }, '5\r\nhello\r\n'), 'chunked');
    expect405(await ask(bed, 'POST /v2/', { Expect: 'something-else' }), 'unknown expectation');
  });

  test('a body without end is not read without end', async () => {
    const socket = connectTcp(bed.httpPort, '127.0.0.1');
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', () => {});
    socket.write('PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n');
    const piece = Buffer.alloc(64 * 1024);
    const pump = (): void => {
      while (socket.writable && socket.write(piece));
    };
    socket.on('drain', pump);
    pump();
    await new Promise((resolve) => socket.once('close', resolve));
    expect405(parseAnswer(Buffer.concat(chunks).toString()), 'endless');
    // What was read, and what two socket buffers hold.
    expect(socket.bytesWritten).toBeLessThan(64 * 1024 * 1024);
  });

  test.each(['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT', 'BREW'])('%s over HTTP/2', async (method) => {
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    const headers =
      method === 'CONNECT'
        ? { ':method': method, ':authority': 'x:1' }
        : { ':method': method, ':path': '/v2/a/blobs/uploads/' };
    const stream = session.request(headers, { endStream: false });
    const [answer] = (await once(stream, 'response')) as [IncomingHttpHeaders];
    expect(answer).toMatchObject({ ':status': 405, allow: 'GET, HEAD' });
    let body = '';
    for await (const chunk of stream) body += chunk;
    expect(JSON.parse(body).errors[0].code).toBe('UNSUPPORTED');
    session.close();
    stream.close();
  });
});

describe('the HTTP port', () => {
  let bed: EdgeBed;
  beforeAll(async () => {
    bed = await startEdgeBed();
  });
  afterAll(() => bed.stop());

  test.each([
    ['localhost', 'localhost'],
    ['localhost:8080', 'localhost'],
    ['HUB.localhost.', 'hub.localhost'],
    ['127.0.0.1', '127.0.0.1'],
    ['[::1]:80', '[::1]'],
    // An address that is not ours is no place to be sent to.
    ['203.0.113.9', 'localhost'],
  ])('redirects %s', async (host, expected) => {
    const answer = await askPlain(bed.httpPort, 'GET /v2/a%20b/tags/list?n=5&x=%0d', { Host: host });
    expect(answer.status).toBe(308);
    expect(answer.headers.location).toBe(`https://${expected}:${bed.httpsPort}/v2/a%20b/tags/list?n=5&x=%0d`);
  });

  test.each(['evil.example', 'nope.localhost', 'localhost@evil.example', 'evil.example/localhost'])(
    'never to %s',
    async (host) => {
      const answer = await askPlain(bed.httpPort, 'GET /v2/', { Host: host });
      expect(answer.headers).not.toHaveProperty('location');
      expect([400, 404]).toContain(answer.status);
    },
  );

  test('a path with two slashes stays a path', async () => {
    const answer = await askPlain(bed.httpPort, 'GET //evil.example/x');
    expect(answer.headers.location).toBe(`https://localhost:${bed.httpsPort}//evil.example/x`);
  });

  test('ACME HTTP-01 comes first, whatever the host', async () => {
    bed.certificates.tokens.set('abc-_', 'abc-_.thumbprint');
    for (const host of ['hub.localhost', 'not-yet.example', '127.0.0.1']) {
      const answer = await askPlain(bed.httpPort, 'GET /.well-known/acme-challenge/abc-_', { Host: host });
      expect([answer.status, answer.body]).toEqual([200, 'abc-_.thumbprint']);
    }
    expect((await askPlain(bed.httpPort, 'GET /.well-known/acme-challenge/other')).status).toBe(404);
  });

  test("the internal CA's root", async () => {
    const answer = await askPlain(bed.httpPort, 'GET /ca.crt');
    expect(answer.status).toBe(200);
    expect(answer.body).toBe(bed.certificates.root);
    expect((await askPlain(bed.httpPort, 'GET /ca.crt', { Host: 'evil.example' })).status).toBe(404);
    expect((await askPlain(bed.httpPort, 'GET /ca-key.pem')).status).toBe(308);
  });

  test('metrics, in Prometheus text', async () => {
    const answer = await askPlain(bed.metricsPort, 'GET /metrics');
    expect(answer.headers['content-type']).toContain('text/plain');
    expect(answer.body).toContain('gateway_http_requests_total{kind="redirect",status="308",from="gateway"}');
    expect((await askPlain(bed.metricsPort, 'GET /v2/a/manifests/1')).status).toBe(404);
  });
});

describe('clients and proxies in front', () => {
  const asked: string[] = [];
  const hosts: (string | undefined)[] = [];
  const access: AccessPort = {
    check({ address, authorization, host }) {
      asked.push(address);
      hosts.push(host);
      if (authorization === undefined) {
        throw new RegistryError('unauthorized', {
          facts: { host: 'x' },
          headers: { 'www-authenticate': 'Basic realm="x"' },
        });
      }
      return { user: 'ada', authenticated: true, known: true, client: 'user:ada' };
    },
    quota: null,
  };
  let direct: EdgeBed;
  let behind: EdgeBed;
  beforeAll(async () => {
    [direct, behind] = await Promise.all([
      startEdgeBed({ access }),
      startEdgeBed({ access, config: { trustedProxies: ['127.0.0.0/8', '10.0.0.0/8'] } }),
    ]);
  });
  afterAll(() => Promise.all([direct.stop(), behind.stop()]));
  beforeEach(() => asked.splice(0));

  const AS_ADA = { Authorization: 'Basic YWRhOng=' };

  test('401 with the challenge, on pings and pulls; then in', async () => {
    for (const path of ['/v2/', '/v2/a/manifests/1']) {
      const refused = await ask(direct, `GET ${path}`);
      expect([refused.status, refused.headers['www-authenticate'], codeOf(refused)]).toEqual([
        401,
        'Basic realm="x"',
        'UNAUTHORIZED',
      ]);
      expect((await ask(direct, `GET ${path}`, AS_ADA)).status).toBe(200);
    }
    expect(direct.registry.pulls.at(-1)?.authenticated).toBe(true);
  });

  test('it is told what people log in to: with the port that they wrote, but for that of HTTPS', async () => {
    for (const [host, told] of [
      ['localhost:8443', 'localhost:8443'],
      ['localhost:443', 'localhost'],
      ['localhost', 'localhost'],
      ['[::1]:5000', '[::1]:5000'],
    ] as const) {
      for (const path of ['/v2/', '/v2/a/manifests/1']) await ask(direct, `GET ${path}`, { Host: host });
      expect(hosts.slice(-2)).toEqual([told, told]);
    }
  });

  const FORWARDED = {
    ...AS_ADA,
    'X-Forwarded-For': '198.51.100.1, 203.0.113.5, 10.1.2.3',
    'X-Forwarded-Host': 'hub.localhost',
    'X-Forwarded-Proto': 'https',
  };

  test('a stranger is not believed', async () => {
    await ask(direct, 'GET /v2/x/manifests/1', { ...FORWARDED, Host: 'k8s-gcr.localhost' });
    expect(asked).toEqual(['127.0.0.1']);
    expect(direct.registry.pulls.at(-1)?.target.registry).toBe('k8s.gcr.io');
    expect((await askPlain(direct.httpPort, 'GET /v2/x/manifests/1', FORWARDED)).status).toBe(308);
  });

  test('a trusted proxy is: host, the client left of it, and that TLS was done', async () => {
    await ask(behind, 'GET /v2/x/manifests/1', { ...FORWARDED, Host: 'nope.example' });
    expect(asked).toEqual(['203.0.113.5']);
    expect(behind.registry.pulls.at(-1)?.target).toMatchObject({ registry: 'docker.io', repository: 'library/x' });
    expect((await askPlain(behind.httpPort, 'GET /v2/x/manifests/1', FORWARDED)).status).toBe(200);
    expect((await askPlain(behind.httpPort, 'GET /v2/', { 'X-Forwarded-Proto': 'http' })).status).toBe(308);
  });
});

test('tls.mode off: the HTTP port serves the registry itself', async () => {
  const bed = await startEdgeBed({
    config: { tls: { mode: 'off' }, listen: { https: null, http: { host: '127.0.0.1', port: 0 }, workers: 1 } },
  });
  try {
    expect(bed.addresses.https).toBeNull();
    expect((await askPlain(bed.httpPort, 'GET /v2/')).status).toBe(200);
    expect((await askPlain(bed.httpPort, 'GET /v2/a/manifests/1', { Host: 'hub.localhost' })).status).toBe(200);
    expect(bed.registry.pulls[0]?.target.repository).toBe('library/a');
    expect((await askPlain(bed.httpPort, 'PUT /v2/')).status).toBe(405);
  } finally {
    await bed.stop();
  }
});
