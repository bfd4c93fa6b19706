import { Agent } from 'node:https';
import type { Way } from '../conformance/distribution.ts';
import type { TestGateway } from './gateway.ts';
import { caOf, sendWhole } from './http-client.ts';

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
  const agent = new Agent({ keepAlive: true, ca: caOf(gateway) });
  return {
    base: way.base,
    close: () => agent.destroy(),
    send: async (method, path, headers = {}) => {
      const received = await sendWhole({
        agent,
        method,
        port: gateway.httpsPort,
        servername: way.host,
        path: way.ns === undefined ? path : `${path}${path.includes('?') ? '&' : '?'}ns=${way.ns}`,
        headers: { host: `${way.host}:${gateway.httpsPort}`, ...headers },
        keep: true,
      });
      return { ...received, headers: received.headers as Record<string, string | undefined> };
    },
  };
}
