import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import type { Answer, Way } from '../conformance/distribution.ts';
import type { TestGateway } from './gateway.ts';

/** The ways to docker.io through a gateway of the domain `localhost` on its seeded table: each a host, a path, perhaps `ns`. */
export const WAYS = {
  'by prefix': { host: 'localhost', base: '/v2/docker.io/' },
  'by prefix, the shape of a mirror whose URL has a path': { host: 'localhost', base: '/docker.io/v2/' },
  'by alias host': { host: 'docker.localhost', base: '/v2/' },
  'as a bare mirror': { host: 'localhost', base: '/v2/' },
  'as a mirror with ns': { host: 'localhost', base: '/v2/', ns: 'docker.io' },
} as const;

export type WayName = keyof typeof WAYS;

/** Sends requests over TLS as that way's client would, its path unchanged, trusting the gateway's own CA and nothing else. */
export function openWay(gateway: TestGateway, name: WayName): Way & { close(): void } {
  const way: { host: string; base: string; ns?: string } = WAYS[name];
  const agent = new Agent({ keepAlive: true, ca: readFileSync(join(gateway.dataDir, 'ca.crt')) });
  return {
    base: way.base,
    close: () => agent.destroy(),
    send: (method, path, headers = {}) =>
      new Promise<Answer>((resolve, reject) => {
        const sent = request(
          {
            agent,
            method,
            host: '127.0.0.1',
            port: gateway.httpsPort,
            servername: way.host,
            path: way.ns === undefined ? path : `${path}${path.includes('?') ? '&' : '?'}ns=${way.ns}`,
            headers: { host: `${way.host}:${gateway.httpsPort}`, ...headers },
          },
          (response) => {
            const chunks: Buffer[] = [];
            response.on('data', (chunk: Buffer) => chunks.push(chunk));
            response.on('error', reject);
            response.on('end', () => {
              resolve({
                status: response.statusCode ?? 0,
                headers: response.headers as Record<string, string | undefined>,
                body: Buffer.concat(chunks),
              });
            });
          },
        );
        sent.on('error', reject);
        sent.end();
      }),
  };
}
