import type { TomlTable } from '../edits.ts';
import {
  authority,
  type ClientFacts,
  caFile,
  type Machine,
  notes,
  ownHosts,
  type Plan,
  patternNotes,
  together,
} from '../facts.ts';
import { loginNote } from '../hosts-toml.ts';
import { aroundProxy } from '../proxy.ts';

/**
 * buildkitd.toml: a mirror is a host with an optional path, which BuildKit puts behind `/v2/`. What it trusts goes by host: FROM may name the
 * bare domain or any alias host, so each has its entry.
 */
export function buildkit(facts: ClientFacts, machine: Machine): Plan {
  const folder = machine.home === null ? '/etc/buildkit' : `${machine.home}/.config/buildkit`;
  const root = `${folder}/gateway-ca.crt`;
  const path = `${folder}/buildkitd.toml`;
  const mirrors = facts.registries.map(
    (registry): TomlTable => ({
      path: ['registry', registry],
      values: { mirrors: [`${authority(facts)}/${registry}`] },
      before: ['mirrors'],
    }),
  );
  const trusts = {
    ...(facts.ca === null ? {} : { ca: [root] }),
    ...(facts.scheme === 'http' ? { http: true } : {}),
  };
  const hosts = Object.keys(trusts).length === 0 ? [] : ownHosts(facts);
  const tables = [
    ...mirrors,
    ...hosts.map((host): TomlTable => ({ path: ['registry', host], values: trusts, before: ['ca'] })),
  ];
  return together(
    { edits: [{ path, format: 'toml', tables }], notes: [] },
    caFile(facts, root),
    notes(
      `With Docker: docker buildx create --driver docker-container --config ${path} --use`,
      'A buildkitd of its own reads it at its start: systemctl restart buildkit',
      ...patternNotes(facts),
      ...loginNote(facts, 'docker login', 'The gateway asks for credentials'),
    ),
    aroundProxy(facts, machine, 'buildkit'),
  );
}
