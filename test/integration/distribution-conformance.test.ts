import { afterAll, beforeAll } from 'vitest';
import { distributionConformance } from '../conformance/distribution.ts';
import { FakeRegistry, generated, MEDIA } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { openWay, WAYS, type WayName } from '../support/ways.ts';

const NAME = 'library/app';
let upstream: FakeRegistry;
let gateway: TestGateway;
const ways: { close(): void }[] = [];
showLogOfFailures(() => gateway);

beforeAll(async () => {
  upstream = await FakeRegistry.start({ auth: { scheme: 'bearer' }, redirect: { to: 'signed' } });
  gateway = await startGateway();
  await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
}, 60_000);

afterAll(async () => {
  for (const way of ways) way.close();
  await gateway?.close();
  await upstream?.close();
});

for (const name of Object.keys(WAYS) as WayName[]) {
  distributionConformance(name, async () => {
    const way = openWay(gateway, name);
    ways.push(way);
    // Another repository for each way, so that each starts cold.
    const repositoryName = `${NAME}-${ways.length}`;
    const repository = upstream.repository(repositoryName);
    const layer = generated(300_000, repositoryName);
    const image = repository.addImage('latest', [layer]);
    for (const tag of ['1', '1.0', '2']) repository.addImage(tag, [generated(10, tag)]);
    const referrer = (artifactType: string) => ({
      artifactType,
      digest: repository.addImage(undefined, [artifactType], { subject: image, artifactType }).digest,
    });
    return {
      way,
      held: {
        name: repositoryName,
        absentName: 'library/absent',
        tag: 'latest',
        manifest: { body: image.body, mediaType: MEDIA.manifest, digest: image.digest },
        blob: { body: layer.read(0, layer.size), digest: layer.digest },
        tags: ['1', '1.0', '2', 'latest'],
        referrers: [referrer('application/vnd.example.sbom'), referrer('application/vnd.example.signature')],
      },
    };
  });
}
