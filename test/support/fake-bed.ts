import type { CacheStats } from '../../src/cache/admin.ts';
import { FakeRegistry } from './fake-registry/index.ts';
import { startGateway, type TestGateway } from './gateway.ts';
import { type GatewayClient, openClient } from './http-client.ts';

/** A gateway of one process whose docker.io is a fake registry, and a client of its blobs. */
export interface FakeBed {
  readonly upstream: FakeRegistry;
  readonly gateway: TestGateway;
  readonly client: GatewayClient;
  stats(): Promise<CacheStats>;
  close(): Promise<void>;
}

/** `cache` and `upstream` are those parts of the gateway's configuration. */
export async function startFakeBed(
  cache: Record<string, unknown> = {},
  upstreamConfig: Record<string, unknown> = {},
): Promise<FakeBed> {
  const upstream = await FakeRegistry.start();
  let gateway: TestGateway | undefined;
  try {
    gateway = await startGateway({ config: { listen: { workers: 1 }, cache, upstream: upstreamConfig } });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
    return bedOf(upstream, gateway, openClient(gateway));
  } catch (error) {
    await gateway?.close();
    await upstream.close();
    throw error;
  }
}

function bedOf(upstream: FakeRegistry, gateway: TestGateway, client: GatewayClient): FakeBed {
  return {
    upstream,
    gateway,
    client,
    stats: async () => JSON.parse(await gateway.ok('cache', 'stats', '--json')) as CacheStats,
    close: async () => {
      client.close();
      await gateway.close();
      await upstream.close();
    },
  };
}
