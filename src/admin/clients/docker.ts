import type { ClientConfiguration } from '../rows.ts';
import { authority, baseUrl, type ClientFacts, caFile, mirrorLocation } from './facts.ts';

/**
 * Docker mirrors docker.io only (daemon.json, `registry-mirrors`); everything else is pulled by a name under the gateway.
 * `certs.d/HOST:PORT/ca.crt` is read for mirrors too.
 */
export function docker(facts: ClientFacts): Omit<ClientConfiguration, 'client'> {
  const { files, notes } = caFile(facts, `/etc/docker/certs.d/${authority(facts)}/ca.crt`);
  const daemon = {
    'registry-mirrors': [baseUrl(facts)],
    ...(facts.scheme === 'http' ? { 'insecure-registries': [authority(facts)] } : {}),
  };
  const other = facts.registries.find(
    (registry) => registry !== 'docker.io' && mirrorLocation(facts, registry) !== null,
  );
  const alias = facts.aliases.find((one) => one.registry === other);
  const names = [
    ...(other === undefined ? [] : [`docker pull ${mirrorLocation(facts, other)}/NAME:TAG`]),
    ...(alias === undefined ? [] : [`docker pull ${authority(facts, alias.host)}/NAME:TAG`]),
  ];
  return {
    files: [{ path: '/etc/docker/daemon.json', content: `${JSON.stringify(daemon, null, 2)}\n` }, ...files],
    notes: [
      ...notes,
      'Keep what daemon.json has already: add these keys to it. Then: systemctl restart docker',
      ...(names.length === 0
        ? []
        : [
            `Docker mirrors docker.io only. Other registries are pulled by a name under the gateway:\n  ${names.join('\n  ')}`,
          ]),
      ...(facts.ca === null || alias === undefined
        ? []
        : [
            `For alias hosts copy ca.crt to /etc/docker/certs.d/${authority(facts, alias.host)}/ and so on, one directory a host.`,
          ]),
      ...(facts.credentials
        ? [
            `The gateway asks for credentials: docker login ${authority(facts)}\nDocker sends its docker.io login, not this one, to a mirror: with credentials required, pull ${authority(facts)}/docker.io/library/NAME:TAG instead.`,
          ]
        : []),
    ],
  };
}
