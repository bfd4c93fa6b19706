import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DockerRegistry, requestSeen, startDockerRegistry } from '../support/docker-registry.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf } from '../support/http-client.ts';
import { buildImage } from '../support/oci-image.ts';
import { runProgram } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';
import { parseAnswer } from '../support/raw-client.ts';

const METHODS = ['PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND', 'CONNECT'];
const HOSTS = ['localhost', 'k8s-gcr.localhost', '127.0.0.1', 'nobody.example.org'];
const PATHS = [
  '/',
  '/v2/',
  '/v2/pause/manifests/3.9',
  '/v2/k8s.gcr.io/pause/blobs/uploads/',
  '/k8s.gcr.io/v2/pause/manifests/3.9',
  '/v2/pause/manifests/3.9?ns=k8s.gcr.io',
  '/healthz',
  '/.well-known/acme-challenge/x',
  '/nothing/here',
];

const image = buildImage('pause', [10_000]);

describeWith(['linux', 'docker-registry', 'skopeo'], 'anything but GET and HEAD is refused', () => {
  let upstream: DockerRegistry;
  let gateway: TestGateway;
  let ca: string;
  let before: number;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    upstream = await startDockerRegistry();
    await upstream.push(image, 'pause', '3.9');
    gateway = await startGateway({ config: { domain: 'localhost' } });
    await gateway.ok('registry', 'set', 'k8s.gcr.io', '--endpoint', upstream.endpoint);
    ca = caOf(gateway);
    before = upstream.requests().length;
  });

  afterAll(async () => {
    await gateway?.close();
    await upstream?.close();
  });

  it.each(['https', 'http'] as const)('on the %s port, whatever the method, host and path', async (port) => {
    const wrong: string[] = [];
    for (const method of METHODS) {
      for (const host of HOSTS) {
        for (const path of PATHS) {
          // An unknown name gets no TLS at all: it is asked for under a known one.
          const servername = host.endsWith('localhost') ? host : 'localhost';
          const socket =
            port === 'https'
              ? connectTls({ host: '127.0.0.1', port: gateway.httpsPort, servername, ca })
              : connectTcp(gateway.httpPort, '127.0.0.1');
          const target = method === 'CONNECT' ? `${host}:443` : path;
          const answer = parseAnswer(
            await exchange(
              socket,
              `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
            ),
          );
          const code = answer.body === '' ? undefined : JSON.parse(answer.body).errors?.[0]?.code;
          if (answer.status !== 405 || answer.headers.allow !== 'GET, HEAD' || code !== 'UNSUPPORTED') {
            wrong.push(`${method} ${host} ${target}: ${answer.status} ${answer.headers.allow} ${code}`);
          }
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it('over HTTP/2', async () => {
    const session = connectHttp2(`https://127.0.0.1:${gateway.httpsPort}`, { ca, servername: 'localhost' });
    try {
      for (const method of ['PUT', 'POST', 'PATCH', 'DELETE']) {
        const stream = session.request({ ':method': method, ':path': '/v2/k8s.gcr.io/pause/manifests/3.9' });
        const [headers, body] = await new Promise<[Record<string, unknown>, string]>((resolve, reject) => {
          let head: Record<string, unknown> = {};
          let text = '';
          stream.once('response', (fields) => {
            head = fields;
          });
          stream.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          stream.once('end', () => resolve([head, text]));
          stream.once('error', reject);
          stream.end();
        });
        expect([method, headers[':status'], headers.allow]).toEqual([method, 405, 'GET, HEAD']);
        expect(JSON.parse(body).errors[0].code).toBe('UNSUPPORTED');
      }
    } finally {
      session.close();
    }
  });

  it('in the middle of an upload, with a body', async () => {
    const body = 'x'.repeat(100_000);
    const socket = connectTls({ host: '127.0.0.1', port: gateway.httpsPort, servername: 'localhost', ca });
    const text = await exchange(
      socket,
      `PUT /v2/k8s.gcr.io/pause/manifests/3.9 HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    expect(parseAnswer(text).status).toBe(405);
  });

  it('and nothing of it all has reached the upstream', async () => {
    expect(before).toBeGreaterThan(0);
    // Once this one is in its log, whatever came before it is, too.
    await fetch(`${upstream.endpoint}/v2/_catalog`);
    await requestSeen(upstream, /_catalog/);
    expect(upstream.requests().slice(before)).toEqual([expect.stringContaining('_catalog')]);
  });

  it('to skopeo, which is told so', async () => {
    const { code, stderr } = await runProgram({
      command: programPath('skopeo'),
      args: [
        ...['--insecure-policy', 'copy', '--src-tls-verify=false', '--dest-tls-verify=false'],
        `docker://127.0.0.1:${upstream.port}/pause:3.9`,
        `docker://127.0.0.1:${gateway.httpsPort}/k8s.gcr.io/pushed:1`,
      ],
    });
    expect(code).not.toBe(0);
    expect(stderr).toContain('only serves pulls');
    // What it read was asked of the upstream by skopeo itself, under another name.
    expect(upstream.requests().filter((line) => line.includes('/v2/pushed/') && !/"(GET|HEAD) /.test(line))).toEqual(
      [],
    );
  });

  function exchange(socket: Socket, bytes: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      // It may close while a body is still being sent: what it answered counts.
      socket.once('error', (error) => (chunks.length > 0 ? resolve(Buffer.concat(chunks).toString()) : reject(error)));
      socket.once('close', () => resolve(Buffer.concat(chunks).toString()));
      socket.write(bytes);
    });
  }
});
