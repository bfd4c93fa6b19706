import { Agent } from 'node:https';
import { connect } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { sha256 } from '../support/content.ts';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { sendWhole } from '../support/http-client.ts';
import { type Blob, buildImage } from '../support/oci-image.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { describeWith } from '../support/programs.ts';

const DOMAIN = 'cr.example.com';
const NEW_HOST = `new-name.${DOMAIN}`;
const PULLS = 200;
/** Pulls that run at one moment. */
const AT_ONCE = 8;

const image = buildImage('pause', [300_000, 70_000, 30]);

describeWith(
  ['linux', 'docker-registry', 'skopeo', 'pebble', 'pebble-challtestsrv'],
  'alias add against a running gateway, with a real CA',
  () => {
    let upstream: DockerRegistry;
    let pebble: Pebble;
    let gateway: TestGateway;
    let root: string;
    showLogOfFailures(() => gateway);

    beforeAll(async () => {
      upstream = await startDockerRegistry();
      await upstream.push(image, 'pause', '3.9');
      gateway = await prepareGateway({ config: { domain: DOMAIN, tls: { mode: 'acme' } } });
      pebble = await startPebble({ httpPort: gateway.httpPort, tlsPort: gateway.httpsPort });
      // The names lead to the gateway's ports by pebble's own DNS server and settings only.
      const issuers = [{ directory: pebble.directory, caFile: pebble.caFile }];
      gateway.configure({ acme: { issuers, selfCheck: false } });
      root = await pebble.root();
      await gateway.start();
    });

    afterAll(async () => {
      await gateway?.close();
      await pebble?.stop();
      await upstream?.close();
    });

    it('issues the certificate and takes it into use while 200 pulls run across the change', async () => {
      // An alias to pull through meanwhile.
      await gateway.ok('alias', 'add', 'meanwhile', 'k8s.gcr.io');
      await gateway.ok('registry', 'set', 'k8s.gcr.io', '--endpoint', upstream.endpoint);
      expect(await serverName(NEW_HOST).catch((error: Error) => error.message)).toMatch(/alert|unrecognized/i);

      const keptAlive = new Agent({ keepAlive: true, maxSockets: AT_ONCE, ca: root });
      const failures: string[] = [];
      let done = 0;
      let added: Awaited<ReturnType<TestGateway['cli']>> | undefined;
      let doneAtAdd = 0;
      let doneWhenAdded = 0;
      const pull = async (index: number): Promise<void> => {
        // Every other pull makes connections of its own.
        const agent = index % 2 === 0 ? keptAlive : new Agent({ keepAlive: false, ca: root });
        try {
          await pullImage(agent, `meanwhile.${DOMAIN}`);
        } catch (error) {
          failures.push(`pull ${index}: ${String(error)}`);
        }
        done += 1;
      };
      let next = 0;
      const puller = async (): Promise<void> => {
        // On and on until the change is over, and 200 in all at least.
        while (next < PULLS || added === undefined) {
          next += 1;
          await pull(next);
        }
      };
      const pulling = Promise.all(Array.from({ length: AT_ONCE }, puller));
      while (done < PULLS / 4) await new Promise((resolve) => setTimeout(resolve, 5));
      doneAtAdd = done;
      const adding = gateway.cli(['alias', 'add', 'new-name', 'new.example.org', '--endpoint', upstream.endpoint]);
      const ran = await adding;
      // The very next handshake.
      const served = await serverName(NEW_HOST, root);
      doneWhenAdded = done;
      added = ran;
      await pulling;
      keptAlive.destroy();

      expect(ran.code, ran.stderr + ran.stdout).toBe(0);
      expect(served.names).toBe(`DNS:${NEW_HOST}`);
      expect(served.issuer).toMatch(/^Pebble Intermediate/);
      expect(failures).toEqual([]);
      expect(done).toBeGreaterThanOrEqual(PULLS);
      // They did run across it, before and after.
      expect(doneWhenAdded).toBeGreaterThan(doneAtAdd);
      expect(done).toBeGreaterThan(doneWhenAdded);
      // Each step was shown.
      for (const word of ['order', 'valid', 'in use']) expect(`${ran.stdout}${ran.stderr}`).toContain(word);
    });

    it('pulls through the new name', async () => {
      const agent = new Agent({ keepAlive: false, ca: root });
      await pullImage(agent, NEW_HOST);
    });

    it('lists it as valid, and adding it again changes nothing', async () => {
      const before = orders();
      expect(before).toBeGreaterThan(0);
      const again = await gateway.cli(['alias', 'add', 'new-name', 'new.example.org']);
      expect(again.code).toBe(0);
      const rows = JSON.parse(await gateway.ok('alias', 'ls', '--json')) as {
        host: string;
        certificate: { state: string };
      }[];
      expect(rows.find(({ host }) => host === NEW_HOST)?.certificate.state).toBe('valid');
      expect(orders()).toBe(before);
    });

    it('keeps the certificate of a removed alias for a later add', async () => {
      const first = await serverName(NEW_HOST, root);
      await gateway.ok('alias', 'rm', 'new-name');
      expect(await serverName(NEW_HOST, root).catch((error: Error) => error.message)).toMatch(/alert|unrecognized/i);
      await gateway.ok('alias', 'add', 'new-name', 'new.example.org');
      expect((await serverName(NEW_HOST, root)).serial).toBe(first.serial);
    });

    /** Orders that the CA has been sent. */
    function orders(): number {
      return pebble.log().match(/POST \/order-plz/g)?.length ?? 0;
    }

    async function pullImage(agent: Agent, host: string): Promise<void> {
      const manifest = await get(agent, host, '/v2/pause/manifests/3.9');
      check(image.manifest, manifest);
      for (const blob of [image.config, ...image.layers]) {
        check(blob, await get(agent, host, `/v2/pause/blobs/${blob.digest}`));
      }
    }

    function check(expected: Blob, bytes: Buffer): void {
      if (sha256(bytes) !== expected.digest) throw new Error(`${expected.digest} arrived as ${sha256(bytes)}`);
    }

    async function get(agent: Agent, host: string, path: string): Promise<Buffer> {
      const headers = { host, accept: image.manifest.mediaType };
      const received = await sendWhole({ port: gateway.httpsPort, servername: host, path, agent, headers, keep: true });
      if (received.status !== 200) throw new Error(`${path}: ${received.status} ${received.text}`);
      return received.body;
    }

    function serverName(
      host: string,
      ca?: string,
    ): Promise<{ names: string | undefined; issuer: string; serial: string }> {
      return new Promise((resolve, reject) => {
        const socket = connect(
          { host: '127.0.0.1', port: gateway.httpsPort, servername: host, ...(ca === undefined ? {} : { ca }) },
          () => {
            const certificate = socket.getPeerCertificate();
            socket.destroy();
            resolve({
              names: certificate.subjectaltname,
              issuer: String(certificate.issuer.CN),
              serial: certificate.serialNumber,
            });
          },
        );
        socket.once('error', reject);
      });
    }
  },
);
