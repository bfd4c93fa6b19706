import { expect, it } from 'vitest';
import { Denials } from '../../../src/proxy/denials.ts';
import { ManifestCache } from '../../../src/proxy/manifest-cache.ts';
import { type Pull, repliesTally } from '../../../src/proxy/reply.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { CoreHost } from '../../../src/workers/core-host.ts';
import { RemoteCore } from '../../../src/workers/remote-core.ts';
import { channelPair } from '../../support/channel-pair.ts';

it('a worker keeps its manifests when a certificate or a user changes, and drops them when the owner’s core does', async () => {
  let asked = 0;
  const core = {
    generation: 3,
    denials: new Denials(),
    serve: async () => {
      asked++;
      return { status: 200, headers: {}, body: Buffer.from('{}'), from: 'cache' as const, freshUntil: Infinity };
    },
  };
  const { owner, worker } = channelPair();
  new CoreHost(core, owner);
  const remote = new RemoteCore(worker);
  const cache = new ManifestCache({ core: remote, replies: repliesTally(new Metrics()), rowName: (host) => host });
  const what = { kind: 'manifest', reference: { kind: 'tag', tag: '1' } } as const;
  const pull: Pull = {
    target: { registry: 'docker.io', repository: 'library/app', what },
    method: 'GET',
    authenticated: false,
    client: '192.0.2.1',
    base: '/v2/',
    signal: new AbortController().signal,
  };
  // Each state of the owner says it, whatever else has changed.
  for (const [generation, times] of [
    [3, 1],
    [3, 1],
    [4, 2],
    [4, 2],
  ] as const) {
    remote.ownerIsAt(generation);
    await cache.serve(pull);
    expect(asked).toBe(times);
  }
});
