import { expect, it } from 'vitest';
import { Denials } from '../../../src/proxy/denials.ts';
import { CoreHost } from '../../../src/workers/core-host.ts';
import { RemoteCore } from '../../../src/workers/remote-core.ts';
import { channelPair } from '../../support/channel-pair.ts';
import { eventually } from '../../support/eventually.ts';

it('a repository that its registry denies is denied in every worker, and there alone', async () => {
  const core = {
    generation: 0,
    denials: new Denials(),
    serve: () => Promise.reject(new Error('not asked for here')),
  };
  const [one, other] = [channelPair(), channelPair()];
  const workers = [one, other].map(({ owner, worker }) => {
    new CoreHost(core, owner);
    return new RemoteCore(worker);
  });
  const asked = workers.map(({ denials }) => denials.now);
  core.denials.add('docker.io/library/app');
  const denied = (repository: string) =>
    workers.map(({ denials }, number) => denials.since(asked[number] ?? 0, repository));
  await eventually('both workers know', () => denied('docker.io/library/app').every((known) => known));
  expect(denied('docker.io/library/other')).toEqual([false, false]);
  expect(workers.map(({ generation }) => generation)).toEqual([0, 0]);
  // One that has gone is not told any more.
  other.cut();
  core.denials.add('docker.io/library/other');
  await eventually('the first knows', () => denied('docker.io/library/other')[0] === true);
});
