import { createHash } from 'node:crypto';
import { Agent } from 'node:https';
import type { TLSSocket } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type AcmeGateway, DOMAIN, importAliases, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { sendWhole } from '../support/http-client.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { describeWith } from '../support/programs.ts';

/** Two lifetimes. A long run asks for ten minutes, as long as the promise: GATEWAY_TEST_RENEWALS=600. */
const SECONDS = Number(process.env.GATEWAY_TEST_RENEWALS ?? 120);
const ALIASES = Array.from({ length: 20 }, (_, n) => `soak-${n}`);
/** What a new table orders: for the bare domain; its aliases are on demand. */
const FIRST_HOSTS = 1;
const PULLERS = 6;

describeWith(['pebble', 'pebble-challtestsrv'], 'certificates that last a minute', () => {
  let gateway: AcmeGateway;
  let pebble: Pebble;
  let upstream: FakeRegistry;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    upstream = await FakeRegistry.start();
    const ports = await listenerPorts();
    pebble = await startPebble({ httpPort: ports.http, tlsPort: ports.tls, validity: 60, nonceReject: 5 });
    gateway = await prepareAcmeGateway({ issuers: [pebble], ports });
    await importAliases(gateway, ALIASES, upstream.url);
    await gateway.start();
  });

  afterAll(async () => {
    await gateway?.close();
    await pebble?.stop();
    await upstream?.close();
  });

  it(
    `are renewed for ${SECONDS} s under constant pulls: no failed handshake, no failed pull, none under an expired certificate`,
    async () => {
      await gateway.valid(FIRST_HOSTS + ALIASES.length, 120_000);
      const layer = generated(64 * 1024, 'soak');
      const image = upstream.repository('library/app').addImage('1', [layer]);
      const ca = await pebble.root();
      const serials = new Map<string, Set<string>>(ALIASES.map((name) => [name, new Set()]));
      const failures: string[] = [];
      let pulls = 0;
      let handshakes = 0;
      const known = new WeakSet<object>();
      // As real clients do, it gives up a kept connection before the server does: a request that meets the server's closing is lost.
      const kept = new Agent({ keepAlive: true, ca, maxSockets: 4, timeout: 30_000 });

      const fetchBytes = async (name: string, path: string, agent: Agent | false): Promise<Buffer> => {
        const host = `${name}.${DOMAIN}`;
        const received = await sendWhole({
          ...{ port: gateway.httpsPort, servername: host, path, agent, ca, keep: true },
          headers: { host, accept: image.mediaType },
          onSocket: (socket) => {
            // A kept one was looked at when it was new.
            if (known.has(socket)) return;
            known.add(socket);
            socket.once('secureConnect', () => {
              handshakes++;
              // A resumed session shows no certificate.
              if ((socket as TLSSocket).isSessionReused()) return;
              const certificate = (socket as TLSSocket).getPeerX509Certificate();
              const now = Date.now();
              if (certificate === undefined || certificate.validToDate.getTime() <= now) {
                failures.push(`${host} was shown a certificate that ended ${certificate?.validTo}`);
              } else serials.get(name)?.add(certificate.serialNumber);
            });
          },
        });
        if (received.status !== 200) throw new Error(`${path} of ${host} answered ${received.status}`);
        return received.body;
      };

      const end = Date.now() + SECONDS * 1000;
      const puller = async (number: number): Promise<void> => {
        for (let turn = number; Date.now() < end; turn++) {
          const name = ALIASES[turn % ALIASES.length] ?? '';
          // Kept-alive and new connections in turn, for every host.
          const agent = Math.floor(turn / ALIASES.length) % 2 === 0 ? kept : false;
          try {
            const manifest = await fetchBytes(name, '/v2/library/app/manifests/1', agent);
            const blob = await fetchBytes(name, `/v2/library/app/blobs/${layer.digest}`, agent);
            const got = [manifest, blob].map((bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`);
            if (got[0] !== image.digest || got[1] !== layer.digest) failures.push(`${name} gave other bytes`);
            pulls++;
          } catch (error) {
            failures.push(`${new Date().toISOString()} ${name}: ${error}`);
          }
          // Constant, not as fast as can be: two cores carry the CA, the upstream and this as well.
          await new Promise((done) => setTimeout(done, 40));
        }
      };
      await Promise.all(Array.from({ length: PULLERS }, (_, number) => puller(number)));
      kept.destroy();
      expect(failures.slice(0, 20)).toEqual([]);
      // One at least in each lifetime, for every host.
      const least = Math.floor(SECONDS / 60);
      for (const [name, seen] of serials)
        expect(seen.size, `certificates seen of ${name}`).toBeGreaterThanOrEqual(least);
      console.log(
        `${pulls} pulls, ${handshakes} handshakes, ${[...serials.values()].reduce((sum, { size }) => sum + size, 0)} certificates`,
      );
      expect(pulls).toBeGreaterThan(SECONDS);
      expect(await gateway.valid(FIRST_HOSTS + ALIASES.length)).toHaveLength(FIRST_HOSTS + ALIASES.length);
    },
    (SECONDS + 300) * 1000,
  );
});
