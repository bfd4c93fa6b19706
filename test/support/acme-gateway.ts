import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CertificateInfo } from '../../src/certs/service.ts';
import { makeDataDirectory } from './data-directory.ts';
import { eventually } from './eventually.ts';
import { prepareGateway, type TestGateway } from './gateway.ts';
import { freePorts, type Surroundings } from './processes.ts';

/** Domain of gateways whose certificates come from a CA of the test. */
export const DOMAIN = 'gw.test';

export interface AcmeGateway extends TestGateway {
  certificates(): Promise<CertificateInfo[]>;
  certificate(host: string): Promise<CertificateInfo>;
  /** Resolves with all valid rows once there are this many. */
  valid(count: number, ms?: number): Promise<CertificateInfo[]>;
}

/** Ports for a gateway's listeners, known before it runs: the CA has to know them, and the gateway the CA. */
export async function listenerPorts(): Promise<{ http: number; tls: number }> {
  const [http = 0, tls = 0] = await freePorts(2);
  return { http, tls };
}

/** A gateway with `tls.mode: acme`, not started yet. The self-check is off: the CA's ports are not those of this machine. */
export async function prepareAcmeGateway(options: {
  readonly issuers: readonly { readonly directory: string; readonly caFile?: string }[];
  readonly ports: { readonly http: number | 'off'; readonly tls: number };
  readonly acme?: object;
  /** Processes; as many as there are cores without it. */
  readonly workers?: number;
  readonly within?: Surroundings;
}): Promise<AcmeGateway> {
  const { issuers, ports } = options;
  const gateway = await prepareGateway({
    config: {
      domain: DOMAIN,
      listen: {
        https: `127.0.0.1:${ports.tls}`,
        http: ports.http === 'off' ? 'off' : `127.0.0.1:${ports.http}`,
        ...(options.workers === undefined ? {} : { workers: options.workers }),
      },
      tls: { mode: 'acme' },
      acme: {
        issuers: issuers.map(({ directory, caFile }) => ({ directory, ...(caFile === undefined ? {} : { caFile }) })),
        selfCheck: false,
        ...options.acme,
      },
    },
    ...(options.within === undefined ? {} : { within: options.within }),
  });
  const certificates = async () => JSON.parse(await gateway.ok('cert', 'ls', '--json')) as CertificateInfo[];
  return Object.assign(gateway, {
    certificates,
    certificate: async (host: string) => {
      const found = (await certificates()).find((row) => row.host === host);
      if (found === undefined) throw new Error(`there is no certificate row for ${host}`);
      return found;
    },
    valid: (count: number, ms = 60_000) =>
      eventually(
        `${count} valid certificates`,
        async () => {
          const rows = await certificates();
          const valid = rows.filter(({ state }) => state === 'valid');
          return valid.length >= count && valid;
        },
        ms,
      ) as Promise<CertificateInfo[]>,
  });
}

/** Puts aliases into the table, one registry each, at one endpoint; into a new one where the gateway was never started. */
export async function importAliases(gateway: AcmeGateway, names: readonly string[], endpoint: string): Promise<void> {
  if (!existsSync(gateway.dataDir)) await makeDataDirectory({ GATEWAY_CONFIG: gateway.configFile });
  const registries = Object.fromEntries(
    names.map((name) => [`${name}.registry.example`, { endpoints: [endpoint], aliases: [name] }]),
  );
  const file = join(gateway.dataDir, '..', 'aliases.yaml');
  // JSON is YAML.
  writeFileSync(file, JSON.stringify({ registries }));
  await gateway.ok('alias', 'import', file);
}
