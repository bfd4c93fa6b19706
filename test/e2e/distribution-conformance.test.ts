import { afterAll, beforeAll } from 'vitest';
import { distributionConformance } from '../conformance/distribution.ts';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { buildImage } from '../support/oci-image.ts';
import { describeWith } from '../support/programs.ts';
import { openWay, WAYS, type WayName } from '../support/ways.ts';

const TAGS = ['1', '1.0', 'latest'];
const image = buildImage('conformance', [300_000, 40]);

// Debian's registry neither pages tags nor knows referrers: the gateway makes good what clients may expect.
describeWith(['docker-registry', 'skopeo'], 'the distribution specification, in front of a real registry', () => {
  let upstream: DockerRegistry;
  let gateway: TestGateway;
  const ways: { close(): void }[] = [];
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    upstream = await startDockerRegistry();
    for (const tag of TAGS) await upstream.push(image, 'library/app', tag);
    gateway = await startGateway();
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.endpoint);
  });

  afterAll(async () => {
    for (const way of ways) way.close();
    await gateway?.close();
    await upstream?.close();
  });

  for (const name of Object.keys(WAYS) as WayName[]) {
    distributionConformance(name, async () => {
      const way = openWay(gateway, name);
      ways.push(way);
      const [layer] = image.layers;
      if (layer === undefined) throw new Error('no layer');
      return {
        way,
        held: {
          name: 'library/app',
          absentName: 'library/absent',
          tag: 'latest',
          manifest: { body: image.manifest.bytes, mediaType: image.manifest.mediaType, digest: image.manifest.digest },
          blob: { body: layer.bytes, digest: layer.digest },
          tags: TAGS,
          referrers: [],
        },
      };
    });
  }
});
