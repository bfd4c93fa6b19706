import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { createServer } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import pino from 'pino';
import { afterEach, describe, expect, test } from 'vitest';
import type { NodeIdentity, TrustedNodes } from '../../src/cluster/identity.ts';
import type { Node } from '../../src/cluster/nodes.ts';
import { PeerClient } from '../../src/cluster/peer-client.ts';
import type { BlobRequest } from '../../src/cluster/peer-protocol.ts';
import { PeerServer } from '../../src/cluster/peer-server.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { makeNodeIdentity } from '../support/fleet-bed.ts';
import { digestOf } from '../support/registry-bed.ts';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

const ASKED: BlobRequest = {
  key: {
    registry: 'docker.io',
    repository: 'library/app',
    digest: digestOf(`sha256:${'a'.repeat(64)}`),
    opener: null,
  },
  client: '192.0.2.7',
  begin: true,
  known: false,
  whole: true,
  range: { from: 0 },
};

function trusting(...identities: readonly NodeIdentity[]): TrustedNodes {
  const certificates = new Map(identities.map(({ id, certificate }) => [id, certificate]));
  return { certificates: () => certificates, watch: () => () => {} };
}

/** A node of the fleet that answers as it likes, and one that asks it. */
async function start(answer: RequestListener, addressOf: (port: number) => string = (port) => `127.0.0.1:${port}`) {
  const [own, other] = [makeNodeIdentity('own'), makeNodeIdentity('other')];
  const server = createServer(
    { key: other.key, cert: other.certificate, ca: [own.certificate], requestCert: true, minVersion: 'TLSv1.3' },
    answer,
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = new PeerClient(() => own, trusting(own, other), { connect: 5_000, answer: 500, silence: 300 });
  closers.push(() => {
    client.close();
    server.closeAllConnections();
    server.close();
  });
  const node: Node = { id: 'other', address: addressOf(port), version: '1', draining: false };
  return { client, node };
}

describe('a node that answers what cannot be understood', () => {
  const answers: Record<string, RequestListener> = {
    'no JSON': (_, response) => response.writeHead(500).end('<html>'),
    nothing: (_, response) => response.writeHead(400).end(),
    'a failure of a later version': (_, response) =>
      response.writeHead(451).end(JSON.stringify({ failure: { kind: 'notYetInvented', options: {} } })),
    'more than a refusal may have': (_, response) => response.writeHead(404).end('x'.repeat(1 << 20)),
    'a refusal that breaks off': (_, response) => {
      response.writeHead(404, { 'content-length': 100 }).write('{"refusal"');
      setTimeout(() => response.destroy(), 50);
    },
    'a refusal that does not end': (request, response) => {
      if (request.url === '/v1/ping') response.writeHead(204).end();
      else response.writeHead(404, { 'content-length': 100 }).write('{"refusal"');
    },
    'less than no size': (_, response) => response.writeHead(200, { 'gateway-size': '-1e9' }).end('bytes'),
    'a size that is none': (_, response) => response.writeHead(200, { 'gateway-size': 'many' }).end('bytes'),
  };
  for (const [what, answer] of Object.entries(answers)) {
    test(`gives nothing: ${what}`, async () => {
      const { client, node } = await start(answer);
      const asked = client.blob(node, ASKED, new AbortController().signal);
      await expect(asked).rejects.toMatchObject({ name: 'PeerError', reason: 'unreachable' });
    });
  }

  test('is not asked where its address is none', async () => {
    for (const address of ['', 'a b:1', '127.0.0.1:99999']) {
      const { client, node } = await start(
        (_, response) => response.end(),
        () => address,
      );
      const asked = client.blob(node, ASKED, new AbortController().signal);
      await expect(asked).rejects.toMatchObject({ name: 'PeerError', reason: 'unreachable' });
    }
  });
});

describe('strangers that reach cluster.listen', () => {
  test('hold no more connections than a few, for no longer than a handshake, and do not fill the log', async () => {
    const [own, other] = [makeNodeIdentity('own'), makeNodeIdentity('other')];
    const told: { level: number; msg: string }[] = [];
    const log = pino({}, { write: (line: string) => void told.push(JSON.parse(line)) });
    const server = await PeerServer.start({
      listen: { host: '127.0.0.1', port: 0 },
      identity: () => other,
      trusted: trusting(own, other),
      giver: { give: async () => null, keeps: () => false },
      may: () => ({ begin: false, growing: false }),
      bid: ({ digest }) => ({ node: digest, held: 0, competes: false, leads: false, kept: false, failure: null }),
      log,
      metrics: new Metrics(),
      handshakes: { ms: 1_000, most: 8 },
    });
    const { port } = server.address;
    const client = new PeerClient(() => own, trusting(own, other), { connect: 5_000, answer: 5_000 });
    const node: Node = { id: 'other', address: `127.0.0.1:${port}`, version: '1', draining: false };
    closers.push(() => {
      client.close();
      void server.close();
    });
    const strangers = Array.from({ length: 40 }, () => connect(port, '127.0.0.1').on('error', () => {}));
    const left = strangers.map((socket) => once(socket.resume(), 'close'));
    await expect.poll(() => strangers.filter(({ closed }) => !closed).length).toBe(8);
    await Promise.all(left);
    expect(await client.isThere(node)).toBe(true);
    for (let n = 0; n < 20; n++) expect(await client.isThere(node)).toBe(true);
    expect(told.map(({ msg }) => msg)).toEqual([
      'somebody that is no node of this fleet was refused on cluster.listen',
    ]);
  });
});
