import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { signCertificate } from '../../src/certs/x509.ts';
import { readBounded } from '../../src/kit/http.ts';
import { eventually } from './eventually.ts';
import { freePorts, runOk, type Surroundings, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

export interface PebbleOptions {
  /** Where it connects to validate http-01 and tls-alpn-01. */
  readonly httpPort: number;
  readonly tlsPort: number;
  /** Lifetime of what it issues, seconds; its own default is five years. */
  readonly validity?: number;
  /** Share of nonces it refuses, per cent. */
  readonly nonceReject?: number;
  /** Demands external accounts: key id to base64url HMAC key. */
  readonly eab?: Readonly<Record<string, string>>;
  /** `host:port` of a DNS server that it asks in place of its own. */
  readonly dnsServer?: string;
  /** Names that resolve; without it every name resolves to 127.0.0.1. */
  readonly names?: readonly string[];
  /** Programs and their names in other surroundings. */
  readonly within?: Surroundings;
  /** On this port again, as after a restart: with no memory of accounts. */
  readonly port?: number;
}

/** A real ACME CA (Debian's pebble), with a DNS server of its own. */
export interface Pebble {
  readonly directory: string;
  readonly port: number;
  /** Root of its own listener, for `acme.issuers[].caFile`. */
  readonly caFile: string;
  /** `host:port` of the DNS server it asks. */
  readonly dns: string;
  /** PEM root of what it issues. */
  root(): Promise<string>;
  /** From now on this name leads to the address; null: nowhere. */
  point(host: string, address: string | null): Promise<void>;
  /** All it printed. */
  log(): string;
  stop(): Promise<void>;
}

export async function startPebble(options: PebbleOptions): Promise<Pebble> {
  const directory = mkdtempSync(join(tmpdir(), 'pebble-'));
  const [dns, dnsManagement, free, management] = (await freePorts(4)) as [number, number, number, number];
  const port = options.port ?? free;
  const caFile = writeListenerCertificate(directory);
  const config = {
    pebble: {
      listenAddress: `127.0.0.1:${port}`,
      managementListenAddress: `127.0.0.1:${management}`,
      certificate: join(directory, 'listener.crt'),
      privateKey: join(directory, 'listener.key'),
      httpPort: options.httpPort,
      tlsPort: options.tlsPort,
      ocspResponderURL: '',
      externalAccountBindingRequired: options.eab !== undefined,
      externalAccountMACKeys: options.eab ?? {},
      ...(options.validity === undefined ? {} : { certificateValidityPeriod: options.validity }),
    },
  };
  const configFile = join(directory, 'pebble.json');
  writeFileSync(configFile, JSON.stringify(config));
  const everywhere = options.names === undefined ? '127.0.0.1' : '';
  const { within } = options;
  const dnsProgram = startProgram({
    command: programPath('pebble-challtestsrv'),
    args: [
      ...['-management', `127.0.0.1:${dnsManagement}`, '-dns01', `127.0.0.1:${dns}`],
      ...['-http01', '', '-https01', '', '-tlsalpn01', '', '-defaultIPv4', everywhere, '-defaultIPv6', ''],
    ],
    within,
  });
  const program = startProgram({
    command: programPath('pebble'),
    args: ['-config', configFile, '-dnsserver', options.dnsServer ?? `127.0.0.1:${dns}`],
    env: {
      ...process.env,
      PEBBLE_VA_NOSLEEP: '1',
      PEBBLE_AUTHZREUSE: '0',
      PEBBLE_WFE_NONCEREJECT: String(options.nonceReject ?? 0),
    },
    within,
  });
  const stop = async (): Promise<void> => {
    await Promise.all([program.kill(), dnsProgram.kill()]);
    rmSync(directory, { recursive: true, force: true });
  };
  const point = async (host: string, address: string | null): Promise<void> => {
    const [path, body] = address === null ? ['clear-a', { host }] : ['add-a', { host, addresses: [address] }];
    const url = `http://127.0.0.1:${dnsManagement}/${path}`;
    if (within === undefined) await fetch(url, { method: 'POST', body: JSON.stringify(body) });
    else {
      const call = `fetch('${url}', { method: 'POST', body: '${JSON.stringify(body)}' })`;
      await runOk({ command: process.execPath, args: ['-e', call], within });
    }
  };
  try {
    const url = `https://127.0.0.1:${port}/dir`;
    await program.waitFor(/Listening on/);
    await dnsProgram.waitFor(/Starting .*management server/i);
    if (within === undefined) await eventually('pebble to answer', () => get(url));
    await eventually('its DNS server to take names', () => point('probe.invalid', '127.0.0.1'));
    for (const name of options.names ?? []) await point(name, '127.0.0.1');
    return {
      directory: url,
      port,
      caFile,
      dns: `127.0.0.1:${dns}`,
      root: () => get(`https://127.0.0.1:${management}/roots/0`, within),
      point,
      log: () => program.output(),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function writeListenerCertificate(directory: string): string {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const now = Date.now();
  const validity = { notBefore: now - 3_600_000, notAfter: now + 24 * 3_600_000, publicKey };
  const signer = { key: privateKey, publicKey, commonName: 'root of the listener' };
  const ca = signCertificate({ ...validity, commonName: signer.commonName, names: [], ca: true }, signer);
  const names = ['localhost', '127.0.0.1'];
  const leaf = signCertificate({ ...validity, commonName: 'listener', names, ca: false }, signer);
  writeFileSync(join(directory, 'listener.crt'), leaf.toString());
  writeFileSync(join(directory, 'listener.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  const caFile = join(directory, 'ca.crt');
  writeFileSync(caFile, ca.toString());
  return caFile;
}

/** Its own listener's certificate is not what these tests are about. */
async function get(url: string, within?: Surroundings): Promise<string> {
  if (within !== undefined) {
    const call = `fetch('${url}').then((answer) => answer.text()).then((text) => process.stdout.write(text))`;
    const env = { ...process.env, NODE_TLS_REJECT_UNAUTHORIZED: '0', NODE_NO_WARNINGS: '1' };
    return (await runOk({ command: process.execPath, args: ['-e', call], env, within })).stdout;
  }
  const call = request(url, { rejectUnauthorized: false, agent: false, timeout: 2_000 });
  call.end();
  const [response] = await once(call, 'response');
  return (await readBounded(response, 1024 * 1024)).toString();
}
