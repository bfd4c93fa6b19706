import { test } from 'vitest';
import { hostName, roleOf } from '../../src/edge/registry-name.ts';
import { resolvePull } from '../../src/edge/target.ts';
import { parseLinks } from '../../src/oci/link.ts';
import { accepts, parseAccept } from '../../src/oci/media-types.ts';
import { parseRange, resolveRanges } from '../../src/oci/range.ts';
import { snapshotOf } from '../support/edge-bed.ts';

// What every request is read with: `npm run bench:micro`.
const DIGEST = `sha256:${'a'.repeat(64)}`;
const registries = ['docker.io', ...Array.from({ length: 1000 }, (_, index) => `r${index}.example.net`)];
const table = snapshotOf('cr.example.com', registries, {
  docker: 'docker.io',
  ...Object.fromEntries(registries.slice(1).map((registry, index) => [`a${index}`, registry])),
});
/** As Docker sends it. */
const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  '*/*',
].join(', ');
const docker = parseAccept(ACCEPT);

test('host and path to target, a thousand aliases', async ({ bench }) => {
  const of = (name: string, host: string, path: string, query = '') =>
    bench(name, () => {
      resolvePull({ host, port: '', path, query }, table);
    });
  await bench.compare(
    of('alias, tag', 'a500.cr.example.com', '/v2/team/app/manifests/1.2.3'),
    of('prefix, blob', 'cr.example.com', `/v2/r500.example.net/team/app/blobs/${DIGEST}`),
    of('registry in front', 'cr.example.com', '/docker.io/v2/library/alpine/manifests/latest'),
    of('ns, percent-encoded', 'cr.example.com', '/v2/team%2Dx/app/manifests/1', 'ns=r500.example.net'),
  );
});

test('headers', async ({ bench }) => {
  await bench.compare(
    bench('Host to role', () => {
      roleOf(hostName('A500.cr.example.com:8443'), table);
    }),
    bench('Accept, parsed', () => {
      parseAccept(ACCEPT);
    }),
    bench('Accept, held against a type', () => {
      accepts(docker, 'application/vnd.oci.image.manifest.v1+json');
    }),
    bench('Range', () => {
      const specs = parseRange('bytes=1048576-2097151, -4096');
      if (specs !== null) resolveRanges(specs, 64 * 1024 * 1024);
    }),
    bench('Link', () => {
      parseLinks('</v2/team/app/tags/list?n=100&last=1.2.3>; rel="next"');
    }),
  );
});
