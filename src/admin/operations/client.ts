import type { CertificateState } from '../../certs/service.ts';
import { clientConfiguration } from '../../clients/configuration.ts';
import { type ClientFacts, gatherFacts } from '../../clients/facts.ts';
import type { Operation } from '../contract.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';

export function clientOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    client: async (input) => {
      const { client } = await parseInput('client', input);
      return clientConfiguration(client, await clientFacts(deps));
    },

    // For what is written from them where the command runs.
    'client.facts': () => clientFacts(deps),
  };
}

/** What clients are told of this gateway, as it runs or as it would start. */
export function clientFacts({ config, table, users, live, certificates }: OperationsDeps): Promise<ClientFacts> {
  return gatherFacts({
    config,
    table: table.snapshot(),
    bound: { https: portOf(live?.addresses.https[0]), http: portOf(live?.addresses.http[0]) },
    // Until a gateway has run, and where another program ends TLS, it is not known.
    holds: live === null || certificates === null ? undefined : (host) => isUsable(certificates.info(host)?.state),
    // Where some networks need none, a configuration is for a mirror in one of them: others log in.
    credentials: config.access.anonymous === null ? users.everAdded : config.access.anonymous === false,
  });
}

/** Whether clients meet a certificate; one that is on demand comes with the first of them. */
function isUsable(state: CertificateState | undefined): boolean {
  return state === 'valid' || state === 'on demand';
}

/** Of `host:port`. */
function portOf(address: string | undefined): number | undefined {
  const port = /:(\d+)$/.exec(address ?? '')?.[1];
  return port === undefined ? undefined : Number(port);
}
