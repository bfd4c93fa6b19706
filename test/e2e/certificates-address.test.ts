import { isIP } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { makeDataDirectory } from '../support/data-directory.ts';
import { startDockerRegistry } from '../support/docker-registry.ts';
import { eventually } from '../support/eventually.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { openNamespace } from '../support/namespace.ts';
import { buildImage } from '../support/oci-image.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { runProgram, type Surroundings } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';
import { digestsOf } from '../support/skopeo.ts';

const NEEDS = [
  'linux',
  'root',
  'pebble',
  'pebble-challtestsrv',
  'docker-registry',
  'skopeo',
  'unshare',
  'nsenter',
  'ip',
  'openssl',
] as const;
/** Globally reachable addresses, as a rented server has; here they are on `lo`. */
const ADDRESSES = ['9.9.9.9', '2620:fe::fe'] as const;
const image = buildImage('app', [200_000, 300]);

const endings: (() => Promise<unknown>)[] = [];
let gateway: TestGateway | undefined;
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});
showLogOfFailures(() => gateway);

/** A CA, a registry, and a gateway that is given nothing but its own address and the CA. */
async function open(address: string): Promise<{ gateway: TestGateway; pebble: Pebble; space: Surroundings }> {
  const space = await openNamespace({ hosts: {}, addresses: ADDRESSES });
  endings.push(() => space.close());
  // No name resolves.
  const pebble = await startPebble({ httpPort: 80, tlsPort: 443, names: [], validity: 160 * 3_600, within: space });
  endings.push(() => pebble.stop());
  const registry = await startDockerRegistry({ within: space });
  endings.push(() => registry.close());
  await registry.push(image, 'team/app', '1');
  gateway = await prepareGateway({
    config: { listen: { https: ':443', http: ':80' } },
    env: {
      GATEWAY_DOMAIN: address,
      GATEWAY_ACME_DIRECTORY: pebble.directory,
      GATEWAY_ACME_CA_FILE: pebble.caFile,
      GATEWAY_ACME_RESOLVERS: pebble.dns,
    },
    within: space,
  });
  const made = gateway;
  endings.push(() => made.close());
  await makeDataDirectory({ GATEWAY_CONFIG: made.configFile, GATEWAY_DOMAIN: address });
  await made.ok('registry', 'set', 'quay.io', '--endpoint', registry.endpoint);
  return { gateway, pebble, space: { wrap: space.wrap } };
}

/** Digests of the manifest and of all that it names, as they arrive over TLS that is verified; empty where anything fails. */
async function pull(space: Surroundings, repository: string, ca: string): Promise<Set<string>> {
  // Old versions of clients read no image name with an IPv6 address in it, so this one is the runtime's own.
  const script = `
    const { createHash } = require('node:crypto');
    const { get } = require('node:https');
    const fetchBytes = (path) => new Promise((resolve, reject) => {
      const headers = { accept: '${image.manifest.mediaType}' };
      get(process.env.REPOSITORY + path, { ca: process.env.CA, headers }, async (answer) => {
        const bytes = Buffer.concat(await answer.toArray());
        if (answer.statusCode === 200) resolve(bytes); else reject(new Error(answer.statusCode + ' ' + bytes));
      }).on('error', reject);
    });
    const digestOf = (bytes) => 'sha256:' + createHash('sha256').update(bytes).digest('hex');
    (async () => {
      const manifest = await fetchBytes('/manifests/1');
      const { config, layers } = JSON.parse(manifest);
      const blobs = await Promise.all([config, ...layers].map(({ digest }) => fetchBytes('/blobs/' + digest)));
      process.stdout.write([manifest, ...blobs].map(digestOf).join(' '));
    })().catch((error) => { process.stderr.write(String(error)); process.exitCode = 1; });`;
  const env = { ...process.env, REPOSITORY: repository, CA: ca };
  const ran = await runProgram({ command: process.execPath, args: ['-e', script], env, within: space });
  return new Set(ran.code === 0 ? ran.stdout.split(' ') : []);
}

/** What a handshake shows: without a server name, or with this one. */
async function shown(space: Surroundings, address: string, serverName: string | null): Promise<string> {
  const to = isIP(address) === 6 ? `[${address}]:443` : `${address}:443`;
  const name = serverName === null ? ['-noservername'] : ['-servername', serverName];
  const ran = await runProgram({
    command: programPath('openssl'),
    args: ['s_client', '-connect', to, ...name],
    input: '',
    within: space,
  });
  return ran.stdout + ran.stderr;
}

describeWith(NEEDS, 'a gateway that has no domain', () => {
  it.each(ADDRESSES)(
    'is given its address, and from its start on %s serves verified pulls within seconds',
    async (address) => {
      const { gateway, pebble, space } = await open(address);
      const host = isIP(address) === 6 ? `[${address}]` : address;
      const ca = await pebble.root();
      const began = performance.now();
      gateway.launch();
      await eventually(
        'a pull that trusts the CA',
        async () => {
          return (await pull(space, `https://${host}/v2/quay.io/team/app`, ca)).size > 0;
        },
        60_000,
      );
      console.log(
        `${address}: ${Math.round(performance.now() - began)} ms from the start to the end of the first verified pull`,
      );
      expect(await pull(space, `https://${host}/v2/quay.io/team/app`, ca)).toEqual(digestsOf(image));
      await gateway.ready();
      // Presets have no host here, so the address alone has a certificate.
      const rows = JSON.parse(await gateway.ok('cert', 'ls', '--json'));
      expect(rows).toMatchObject([{ host: address, state: 'valid' }]);
      const added = await gateway.ok(
        'alias',
        'add',
        'corp',
        'registry.corp.example',
        '--endpoint',
        'http://127.0.0.1:1',
      );
      expect(added).toContain(`its images are pulled as ${host}/registry.corp.example/NAME`);
      const taken = await gateway.ok('alias', 'add', 'k8s', 'k8s.gcr.io');
      expect(taken).toContain(`${host}/k8s.gcr.io/NAME`);
      expect(taken).toContain('k8s still stands for registry.k8s.io; k8s.gcr.io is in the table');
      const labelled = await gateway.cli(['cert', 'explain', 'k8s']);
      expect(labelled.code).toBe(1);
      expect(labelled.stderr).toContain(`k8s has no host of its own, since the domain is the address ${address}`);
      // The bare address is what is shown without a server name, and where a client sends an address as one.
      expect(await shown(space, address, null)).toContain('Pebble Intermediate CA');
      expect(await shown(space, address, 'unknown.example')).toContain('unrecognized name');
      // A full host name has a host of its own.
      await pebble.point('hub.corp.example', '9.9.9.9');
      await gateway.ok('alias', 'add', 'hub.corp.example', 'quay.io');
      expect(await shown(space, address, 'hub.corp.example')).toContain('Pebble Intermediate CA');
    },
    120_000,
  );
});
