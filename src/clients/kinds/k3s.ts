import type { Edit, Placed } from '../edits.ts';
import {
  baseUrl,
  type ClientFacts,
  caFile,
  type Login,
  type Machine,
  notes,
  ownHosts,
  type Plan,
  patternNotes,
  together,
} from '../facts.ts';
import { aroundProxy } from '../proxy.ts';

const K3S = '/etc/rancher/k3s';
const RKE2 = '/etc/rancher/rke2';

/**
 * k3s and RKE2 write containerd's hosts.toml from registries.yaml; the registry travels in `?ns=`. What they need to trust and to log in goes
 * by host, so each host of the gateway that a name may begin with has it.
 */
export function k3s(facts: ClientFacts, machine: Machine, login: Login | null): Plan {
  const isThere = (folder: string) => machine.list(folder).length > 0;
  const folders = isThere(RKE2) ? (isThere(K3S) ? [K3S, RKE2] : [RKE2]) : [K3S];
  const units = machine.known ? machine.list('/etc/systemd/system') : [];
  const services = ['k3s', 'k3s-agent', 'rke2-server', 'rke2-agent'].filter((name) =>
    units.includes(`${name}.service`),
  );
  const restart = (services.length === 0 ? [folders[0] === RKE2 ? 'rke2-server' : 'k3s'] : services).map(
    (name) => `systemctl restart ${name}`,
  );
  return together(
    ...folders.map((folder) => registriesYaml(facts, folder, login)),
    ...services.map((name) => aroundProxy(facts, machine, name)),
    notes(
      'On every node, then: systemctl restart k3s (or k3s-agent). RKE2 reads /etc/rancher/rke2/registries.yaml.',
      'k3s writes the hosts.toml of its containerd from it, and knows no "referrers" there: what verifies signatures asks the registries themselves.',
      ...patternNotes(facts),
      ...(facts.credentials && login === null
        ? ['Put a user of the gateway in place of USER and TOKEN: gateway user add NAME']
        : []),
    ),
    { edits: [], notes: [], restart },
  );
}

function registriesYaml(facts: ClientFacts, folder: string, login: Login | null): Plan {
  const root = `${folder}/gateway-ca.crt`;
  const auth = { username: login?.username ?? 'USER', password: login?.password ?? 'TOKEN' };
  const host = {
    ...(facts.credentials || login !== null ? { auth } : {}),
    ...(facts.ca === null ? {} : { tls: { ca_file: root } }),
  };
  const places: Placed[] = facts.registries.map((registry) => ({
    at: ['mirrors', registry, 'endpoint'],
    value: [baseUrl(facts)],
  }));
  if (Object.keys(host).length > 0)
    places.push(
      ...ownHosts(facts).flatMap((one) =>
        Object.entries(host).flatMap(([part, values]) =>
          Object.entries(values).map(([key, value]): Placed => ({ at: ['configs', one, part, key], value })),
        ),
      ),
    );
  const edit: Edit = {
    path: `${folder}/registries.yaml`,
    format: 'yaml',
    places,
    ...(facts.credentials || login !== null ? { secret: true } : {}),
  };
  return together({ edits: [edit], notes: [] }, caFile(facts, root));
}
