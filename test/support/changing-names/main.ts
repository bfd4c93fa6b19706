import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RegistryError } from '../../../src/oci/errors.ts';
import { FakeRegistry } from '../fake-registry/index.ts';
import { startUpstream, tagsRequest } from '../upstream.ts';

/**
 * Pulls within a network namespace whose resolver changes its answer at each look-up of one name: `node main.ts '<JSON>'`. Prints
 * what it found as one JSON line.
 */
export interface RebindingProgram {
  /** The resolver's. */
  readonly dns: string;
  /** Counts as public; the registry is there. */
  readonly publicAddress: string;
  /** What the second, the fourth … look-up of the name leads to. */
  readonly insideAddress: string;
  readonly pulls: number;
}

export interface RebindingFound {
  /** What was answered to look-ups of the name, in order. */
  readonly answers: string[];
  /** Requests that arrived under the name, at each address. */
  readonly arrived: { readonly publicly: number; readonly inside: number };
  /** The kind of each refusal by redirect, then by token realm. */
  readonly refusals: string[];
}

const program = JSON.parse(process.argv[2] ?? '') as RebindingProgram;
const [REGISTRY, CHANGING] = ['registry.example', 'changing.example'];
const answers: string[] = [];

const dns = createSocket('udp4');
dns.on('message', (question, peer) => {
  const labels: string[] = [];
  let at = 12;
  for (let length = question[at] ?? 0; length > 0; length = question[at] ?? 0) {
    labels.push(question.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  const isA = question.readUInt16BE(at + 1) === 1;
  const name = labels.join('.');
  const address = name === CHANGING && answers.length % 2 === 1 ? program.insideAddress : program.publicAddress;
  if (isA && name === CHANGING) answers.push(address);
  const header = Buffer.alloc(12);
  question.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8180, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(isA ? 1 : 0, 6);
  // A pointer to the name, type A, class IN, no time to live.
  const answer = Buffer.from([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ...address.split('.').map(Number)]);
  const parts = [header, question.subarray(12, at + 5), ...(isA ? [answer] : [])];
  dns.send(Buffer.concat(parts), peer.port, peer.address);
});
dns.bind(53, program.dns);
await once(dns, 'listening');

const arrived = { publicly: 0, inside: 0 };
const servers = [];
let port = 0;
for (const [where, host] of [
  ['publicly', program.publicAddress],
  ['inside', program.insideAddress],
] as const) {
  const server = createServer((_, response) => {
    arrived[where]++;
    response.writeHead(200, { 'content-type': 'application/json', connection: 'close' });
    response.end('{"name":"app","tags":["1"],"token":"abc"}');
  });
  server.listen(port, host);
  await once(server, 'listening');
  port = (server.address() as { port: number }).port;
  servers.push(server);
}

const fake = await FakeRegistry.start({ host: program.publicAddress });
fake.repository('app');
const refusals: string[] = [];
for (const pointed of ['redirect', 'realm']) {
  for (let i = 0; i < program.pulls; i++) {
    const to = `http://${CHANGING}:${port}/`;
    fake.faults = ({ headers }) => {
      if (pointed === 'redirect') return { status: 302, headers: { location: to } };
      return headers.authorization === undefined
        ? { status: 401, headers: { 'www-authenticate': `Bearer realm="${to}",service="s"` } }
        : undefined;
    };
    // A new one each time, so that no connection and no token is kept.
    const upstream = startUpstream({ 'r.test': { endpoints: [`http://${REGISTRY}:${fake.port}`] } });
    try {
      const signal = AbortSignal.timeout(20_000);
      await upstream.tags({ registry: 'r.test', repository: 'app' }, tagsRequest(), signal);
    } catch (error) {
      refusals.push(`${pointed}: ${(error as RegistryError).kind}`);
    }
    await upstream.close();
  }
}
const found: RebindingFound = { answers, arrived, refusals };
process.stdout.write(`${JSON.stringify(found)}\n`);
await fake.close();
for (const server of servers) server.close();
dns.close();
