import { yamlLibrary } from '../../kit/yaml-text.ts';
import type { ClientConfiguration } from '../rows.ts';
import { authority, baseUrl, type ClientFacts, caFile } from './facts.ts';

const ROOT = '/etc/rancher/k3s/gateway-ca.crt';

/** k3s and RKE2 write containerd's hosts.toml from registries.yaml; the registry travels in `?ns=`. */
export function k3s(facts: ClientFacts): Omit<ClientConfiguration, 'client'> {
  const { files, notes } = caFile(facts, ROOT);
  const host = {
    ...(facts.credentials ? { auth: { username: 'USER', password: 'TOKEN' } } : {}),
    ...(facts.ca === null ? {} : { tls: { ca_file: ROOT } }),
  };
  const document = {
    mirrors: Object.fromEntries(facts.registries.map((registry) => [registry, { endpoint: [baseUrl(facts)] }])),
    ...(Object.keys(host).length === 0 ? {} : { configs: { [authority(facts)]: host } }),
  };
  return {
    files: [{ path: '/etc/rancher/k3s/registries.yaml', content: yamlLibrary().stringify(document) }, ...files],
    notes: [
      ...notes,
      'On every node, then: systemctl restart k3s (or k3s-agent). RKE2 reads /etc/rancher/rke2/registries.yaml.',
      ...(facts.credentials ? ['Put a user of the gateway in place of USER and TOKEN: gateway user add NAME'] : []),
    ],
  };
}
