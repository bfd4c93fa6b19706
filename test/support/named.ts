import { randomBytes, randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { freePorts, type Program, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

export interface TsigPair {
  readonly name: string;
  readonly algorithm: 'hmac-sha256' | 'hmac-sha384' | 'hmac-sha512';
  /** Base64. */
  readonly secret: string;
}

export function makeKey(name: string, algorithm: TsigPair['algorithm'] = 'hmac-sha256'): TsigPair {
  return { name, algorithm, secret: randomBytes(32).toString('base64') };
}

export interface ZoneOptions {
  /** Lines of the zone file, below its SOA and NS records: `hub A 127.0.0.1`. */
  readonly records?: readonly string[];
  /** Of name servers, by the label that each has in the zone; the server itself as `ns1` without it. */
  readonly servers?: Readonly<Record<string, string>>;
  /** What the zone says of who may change it: the body of `update-policy`. */
  readonly policy?: string;
  /** Copies the zone of another server in place of one of its own. */
  readonly secondaryOf?: Named;
}

export interface NamedOptions {
  readonly zones: Readonly<Record<string, ZoneOptions>>;
  readonly keys?: readonly TsigPair[];
  /** Another one's address, for a server that has to be known before it runs. */
  readonly address?: string;
}

/**
 * A real name server (Debian's bind9), met on port 53 of an address of loopback that is its own. Ends with the test. Needs root. It listens on
 * another port, since it takes only addresses that an interface has; a relay stands before it.
 */
export interface Named {
  readonly address: string;
  /** Its own, on 127.0.0.1. */
  readonly port: number;
  /** `host:port` */
  readonly server: string;
  /** The values of a TXT record that it has now. */
  txt(name: string): Promise<string[]>;
  /** As if a zone of its had changed at its primary. */
  notify(zone: string): void;
  log(): string;
  stop(): Promise<void>;
}

/** Of 127.0.0.0/8, all of which is this machine; two tests hardly ever meet. */
export function freeAddress(): string {
  return `127.${randomInt(64, 250)}.${randomInt(1, 255)}.${randomInt(1, 255)}`;
}

export async function startNamed({ zones, keys = [], address = freeAddress() }: NamedOptions): Promise<Named> {
  const [port = 0] = await freePorts(1);
  const folder = mkdtempSync(join(tmpdir(), 'named-'));
  const lines = [
    `options { directory "${folder}"; listen-on port ${port} { 127.0.0.1; }; listen-on-v6 { none; }; recursion no;`,
    `  pid-file "${folder}/named.pid"; session-keyfile "${folder}/session.key"; dnssec-validation no; notify no;`,
    `  managed-keys-directory "${folder}"; allow-transfer { any; }; };`,
    'controls { };',
    ...keys.map(({ name, algorithm, secret }) => `key "${name}" { algorithm ${algorithm}; secret "${secret}"; };`),
  ];
  for (const [zone, options] of Object.entries(zones)) lines.push(...zoneLines(folder, zone, options, address));
  writeFileSync(join(folder, 'named.conf'), `${lines.join('\n')}\n`);
  const program: Program = startProgram({
    command: programPath('named'),
    args: ['-g', '-n', '1', '-c', join(folder, 'named.conf')],
  });
  let relay: (() => Promise<void>) | undefined;
  const stop = async () => {
    await relay?.();
    await program.kill();
    rmSync(folder, { recursive: true, force: true });
  };
  onTestFinished(stop);
  await program.waitFor(/ running\n/);
  relay = await startRelay(address, port);
  return {
    address,
    port,
    server: `${address}:53`,
    log: () => program.output(),
    notify(zone) {
      const socket = createSocket('udp4');
      socket.send(notification(zone), port, '127.0.0.1', () => socket.close());
    },
    stop,
    async txt(name) {
      const resolver = new Resolver({ timeout: 5_000, tries: 3 });
      resolver.setServers([`${address}:53`]);
      try {
        return (await resolver.resolveTxt(name)).map((strings) => strings.join(''));
      } catch (error) {
        const { code } = error as { code?: string };
        if (code === 'ENODATA' || code === 'ENOTFOUND') return [];
        throw error;
      }
    },
  };
}

function zoneLines(folder: string, zone: string, options: ZoneOptions, address: string): string[] {
  const file = join(folder, `${zone}.zone`);
  const { policy, secondaryOf } = options;
  if (secondaryOf !== undefined) {
    const primaries = `primaries { 127.0.0.1 port ${secondaryOf.port}; }`;
    return [`zone "${zone}" { type secondary; file "${file}"; ${primaries}; allow-notify { any; }; };`];
  }
  const servers = Object.entries(options.servers ?? { ns1: address });
  writeFileSync(
    file,
    [
      '$TTL 1',
      `@ SOA ns1.${zone}. hostmaster.${zone}. 1 3600 600 86400 1`,
      ...servers.map(([label]) => `@ NS ${label}.${zone}.`),
      ...servers.map(([label, at]) => `${label} A ${at}`),
      ...(options.records ?? []),
      '',
    ].join('\n'),
  );
  const update = policy === undefined ? '' : `update-policy { ${policy} };`;
  return [`zone "${zone}" { type primary; file "${file}"; ${update} };`];
}

/** Passes what comes to port 53 of the address on to the server, by UDP and TCP. */
async function startRelay(address: string, port: number): Promise<() => Promise<void>> {
  const udp = createSocket('udp4');
  udp.on('message', (question, peer) => {
    const asked = createSocket('udp4');
    const late = setTimeout(() => asked.close(), 10_000);
    asked.once('message', (answer) => {
      clearTimeout(late);
      udp.send(answer, peer.port, peer.address);
      asked.close();
    });
    asked.send(question, port, '127.0.0.1');
  });
  udp.bind(53, address);
  const sockets = new Set<Socket>();
  const tcp = createServer((client) => {
    const server = connect(port, '127.0.0.1');
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => {
        client.destroy();
        server.destroy();
      });
    }
    client.pipe(server).pipe(client);
  }).listen(53, address);
  await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
  let open = true;
  return async () => {
    if (!open) return;
    open = false;
    for (const socket of sockets) socket.destroy();
    await Promise.all([new Promise<void>((done) => udp.close(() => done())), new Promise((done) => tcp.close(done))]);
  };
}

/** RFC 1996: the zone may have changed, says its primary. */
function notification(zone: string): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(randomInt(0x10000), 0);
  header.writeUInt16BE((4 << 11) | 0x0400, 2);
  header.writeUInt16BE(1, 4);
  const labels = zone.split('.').map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)]));
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, 6, 0, 1])]);
}
