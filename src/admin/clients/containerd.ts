import type { ClientConfiguration } from '../rows.ts';
import { baseUrl, type ClientFacts, caFile, mirrorLocation } from './facts.ts';

const DIRECTORY = '/etc/containerd/certs.d';

/**
 * containerd's `hosts.toml` (containerd docs/hosts.md): `_default` is for every registry that has no directory of its own, and
 * the registry travels in `?ns=`, so one file serves them all.
 */
export function containerd(facts: ClientFacts): Omit<ClientConfiguration, 'client'> {
  const root = `${DIRECTORY}/_default/gateway-ca.crt`;
  const { files, notes } = caFile(facts, root);
  const trust = facts.ca === null ? '' : `  ca = "${root}"\n`;
  const single = facts.registries.find((registry) => registry !== 'docker.io') ?? 'docker.io';
  return {
    files: [
      {
        path: `${DIRECTORY}/_default/hosts.toml`,
        content: `[host."${baseUrl(facts)}"]\n  capabilities = ["pull", "resolve"]\n${trust}`,
      },
      ...files,
    ],
    notes: [
      ...notes,
      `config.toml must name the directory, then: systemctl restart containerd\n  containerd 2: [plugins."io.containerd.cri.v1.images".registry]\n  containerd 1: [plugins."io.containerd.grpc.v1.cri".registry]\n    config_path = "${DIRECTORY}"`,
      `ctr reads it with: ctr images pull --hosts-dir ${DIRECTORY} docker.io/library/alpine:latest`,
      `For one registry alone, use ${DIRECTORY}/${single}/hosts.toml instead, with:\n  [host."${facts.scheme}://${mirrorLocation(facts, single)?.replace('/', '/v2/') ?? baseUrl(facts)}"]\n    capabilities = ["pull", "resolve"]\n    override_path = true${facts.ca === null ? '' : `\n    ca = "${root}"`}`,
      ...(facts.credentials
        ? [
            `The gateway asks for credentials; give them to the host in hosts.toml:\n  [host."${baseUrl(facts)}".header]\n    authorization = "Basic <base64 of USER:TOKEN>"`,
          ]
        : []),
    ],
  };
}
