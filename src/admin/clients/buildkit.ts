import type { ClientConfiguration } from '../rows.ts';
import { authority, type ClientFacts, caFile } from './facts.ts';

const ROOT = '/etc/buildkit/gateway-ca.crt';

/** buildkitd.toml: a mirror is a host with an optional path, which BuildKit puts behind `/v2/`. */
export function buildkit(facts: ClientFacts): Omit<ClientConfiguration, 'client'> {
  const { files, notes } = caFile(facts, ROOT);
  const blocks = facts.registries.map(
    (registry) => `[registry."${registry}"]\n  mirrors = ["${authority(facts)}/${registry}"]\n`,
  );
  if (facts.ca !== null) blocks.push(`[registry."${authority(facts)}"]\n  ca = ["${ROOT}"]\n`);
  if (facts.scheme === 'http') blocks.push(`[registry."${authority(facts)}"]\n  http = true\n`);
  return {
    files: [{ path: '/etc/buildkit/buildkitd.toml', content: blocks.join('\n') }, ...files],
    notes: [
      ...notes,
      'With Docker: docker buildx create --driver docker-container --config /etc/buildkit/buildkitd.toml --use',
      ...(facts.credentials ? [`The gateway asks for credentials: docker login ${authority(facts)}`] : []),
    ],
  };
}
