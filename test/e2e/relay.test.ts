import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { buildImage, topOf, withAttestation } from '../support/oci-image.ts';
import { describeWith } from '../support/programs.ts';

const app = withAttestation(buildImage('app', [3_000_000, 200_000, 20]));

describeWith(['docker-registry', 'skopeo'], 'relay', () => {
  let source: DockerRegistry;
  let destination: DockerRegistry;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    source = await startDockerRegistry();
    destination = await startDockerRegistry();
    await source.push(app, 'org/app', '1');
    gateway = await startGateway();
    await gateway.ok('registry', 'set', 'upstream.example', '--endpoint', source.endpoint);
  });
  afterAll(async () => {
    await gateway?.close();
    await source?.close();
    await destination?.close();
  });

  it('copies an image', async () => {
    const to = `localhost:${destination.port}/mirror/app`;
    const ran = await gateway.cli(['relay', 'upstream.example/org/app:1', to]);
    expect(ran.code).toBe(0);
    const again = await gateway.cli(['relay', 'upstream.example/org/app:1', to, '--json']);
    expect(JSON.parse(again.stdout)).toMatchObject([{ digest: topOf(app).digest, pushed: 0, skipped: 6, error: null }]);
  });
});
