import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { ClientFacts } from '../clients/facts.ts';
import { clientConfiguration } from '../clients/index.ts';
import type { Operation } from '../contract.ts';
import type { OperationsDeps } from '../deps.ts';
import { parseInput } from './input.ts';

export function clientOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    client: async (input) => clientConfiguration((await parseInput('client', input)).client, await facts(deps)),
  };
}

async function facts(deps: OperationsDeps): Promise<ClientFacts> {
  const { config, table } = deps;
  const { registries, aliases } = table.snapshot();
  const byText = (one: string, other: string): number => (one < other ? -1 : 1);
  return {
    domain: config.domain,
    ...reached(deps),
    ca: config.tls.mode === 'internal' ? await caRoot(config.dataDir) : null,
    registries: [...registries.keys()].sort(byText),
    aliases: [...aliases.values()].sort((one, other) => byText(one.name, other.name)),
    credentials: !(config.access.anonymous ?? deps.users.count === 0),
  };
}

/** Where clients find the gateway. A TLS terminator in front of a public domain is taken to listen on 443. */
function reached(deps: OperationsDeps): Pick<ClientFacts, 'scheme' | 'port'> {
  const { config, live } = deps;
  if (config.tls.mode === 'off' && config.publicDomain) return { scheme: 'https', port: null };
  const scheme = config.tls.mode === 'off' ? 'http' : 'https';
  const bound = live?.addresses[scheme][0];
  const port = bound === undefined ? config.listen[scheme]?.port : Number(/:(\d+)$/.exec(bound)?.[1]);
  const usual = scheme === 'https' ? 443 : 80;
  return { scheme, port: port === undefined || port === usual ? null : port };
}

async function caRoot(dataDir: string): Promise<ClientFacts['ca']> {
  const file = path.join(dataDir, 'ca.crt');
  return { file, pem: await readFile(file, 'utf8').catch(() => null) };
}
