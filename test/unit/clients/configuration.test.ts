import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { clientConfiguration, configurationText } from '../../../src/clients/configuration.ts';
import { CLIENT_KINDS, type ClientFacts } from '../../../src/clients/facts.ts';

const FACTS: ClientFacts = {
  domain: 'cr.example.com',
  scheme: 'https',
  port: null,
  ca: null,
  registries: ['docker.io', 'quay.io', 'registry.corp:5000'],
  patterns: [],
  ownNames: [],
  aliases: [
    { name: 'docker', host: 'docker.cr.example.com', registry: 'docker.io', certificate: true },
    { name: 'quay', host: 'quay.cr.example.com', registry: 'quay.io', certificate: true },
    { name: 'corp', host: 'corp.cr.example.com', registry: 'registry.corp:5000', certificate: true },
  ],
  credentials: false,
};
const LOCAL: ClientFacts = {
  ...FACTS,
  domain: 'localhost',
  port: 8443,
  ca: { pem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', file: '/data/ca.crt' },
};
const PLAIN: ClientFacts = { ...FACTS, domain: '10.0.0.1', scheme: 'http', port: 8080 };

function file(kind: (typeof CLIENT_KINDS)[number], facts: ClientFacts, path: string): string {
  const found = clientConfiguration(kind, facts).files.find((one) => one.path === path);
  if (found === undefined) throw new Error(`${kind} has no ${path}`);
  return found.content;
}

test('docker: the bare domain as the mirror of docker.io, and names for the rest', () => {
  expect(JSON.parse(file('docker', FACTS, '/etc/docker/daemon.json'))).toEqual({
    'registry-mirrors': ['https://cr.example.com'],
  });
  expect(clientConfiguration('docker', FACTS).notes.join('\n')).toContain(
    'docker pull cr.example.com/quay.io/NAME:TAG',
  );
  expect(JSON.parse(file('docker', PLAIN, '/etc/docker/daemon.json'))).toEqual({
    'registry-mirrors': ['http://10.0.0.1:8080'],
    'insecure-registries': ['10.0.0.1:8080'],
  });
  expect(file('docker', LOCAL, '/etc/docker/certs.d/localhost:8443/ca.crt')).toContain('BEGIN CERTIFICATE');
});

test('docker: one file for every registry where it has containerd’s store, and the word that 29 wants and 28 rejects', () => {
  const path = '/etc/docker/certs.d/_default/hosts.toml';
  expect(file('docker', FACTS, path)).toBe(
    '[host."https://cr.example.com"]\n  capabilities = ["pull", "resolve", "referrers"]\n  dial_timeout = "3s"\n',
  );
  expect(file('docker', LOCAL, path)).toContain('ca = "/etc/docker/certs.d/_default/gateway-ca.crt"');
  expect(file('docker', LOCAL, '/etc/docker/certs.d/_default/gateway-ca.crt')).toContain('BEGIN CERTIFICATE');
  const notes = clientConfiguration('docker', LOCAL).notes.join('\n');
  expect(notes).toContain('capabilities = ["pull", "resolve"]');
  expect(notes).toMatch(/Docker 29 [\s\S]*Docker 28 [\s\S]*classic/);
  expect(notes).toContain('docker.cr.example.com:8443');
});

test('containerd: one file for every registry, and the prefix shape for a single one', () => {
  expect(file('containerd', FACTS, '/etc/containerd/certs.d/_default/hosts.toml')).toBe(
    '[host."https://cr.example.com"]\n  capabilities = ["pull", "resolve"]\n  dial_timeout = "3s"\n',
  );
  expect(file('containerd', LOCAL, '/etc/containerd/certs.d/_default/hosts.toml')).toContain(
    'ca = "/etc/containerd/certs.d/_default/gateway-ca.crt"',
  );
  const notes = clientConfiguration('containerd', FACTS).notes.join('\n');
  expect(notes).toContain('capabilities = ["pull", "resolve", "referrers"]');
  expect(notes).toContain('[host."https://cr.example.com/v2/quay.io"]');
  expect(notes).toContain('override_path = true');
});

test.each(['podman', 'cri-o'] as const)('%s: a mirror for each registry, by alias where it has a port', (kind) => {
  const path = '/etc/containers/registries.conf.d/50-gateway.conf';
  const content = file(kind, FACTS, path);
  expect(content).toContain(
    '[[registry]]\nprefix = "quay.io"\nlocation = "quay.io"\n\n[[registry.mirror]]\nlocation = "cr.example.com/quay.io"\n',
  );
  expect(content).toContain('location = "corp.cr.example.com"\n');
  expect(content).not.toContain('cr.example.com/registry.corp:5000');
  expect(content).not.toContain('insecure');
  expect(file(kind, PLAIN, path)).toContain('location = "10.0.0.1:8080/quay.io"\ninsecure = true\n');
  expect(file(kind, LOCAL, '/etc/containers/certs.d/localhost:8443/ca.crt')).toContain('BEGIN CERTIFICATE');
  expect(file(kind, LOCAL, '/etc/containers/certs.d/corp.cr.example.com:8443/ca.crt')).toContain('BEGIN CERTIFICATE');
  const bare = { ...FACTS, aliases: [] };
  expect(file(kind, bare, path)).not.toContain('registry.corp');
  expect(clientConfiguration(kind, bare).notes.join('\n')).toContain('registry.corp:5000 has a port and no alias');
});

test('k3s: every registry by the bare domain', () => {
  const path = '/etc/rancher/k3s/registries.yaml';
  expect(parse(file('k3s', FACTS, path))).toEqual({
    mirrors: Object.fromEntries(FACTS.registries.map((one) => [one, { endpoint: ['https://cr.example.com'] }])),
  });
  const host = {
    auth: { username: 'USER', password: 'TOKEN' },
    tls: { ca_file: '/etc/rancher/k3s/gateway-ca.crt' },
  };
  expect(parse(file('k3s', { ...LOCAL, credentials: true }, path)).configs).toEqual({
    'localhost:8443': host,
    'docker.cr.example.com:8443': host,
    'quay.cr.example.com:8443': host,
    'corp.cr.example.com:8443': host,
  });
});

test('buildkit: each registry below the bare domain, and trust for every host that FROM may name', () => {
  const path = '/etc/buildkit/buildkitd.toml';
  expect(file('buildkit', FACTS, path)).toContain('[registry."quay.io"]\n  mirrors = ["cr.example.com/quay.io"]\n');
  for (const host of ['localhost', ...LOCAL.aliases.map((alias) => alias.host)]) {
    expect(file('buildkit', LOCAL, path)).toContain(
      `[registry."${host}:8443"]\n  ca = ["/etc/buildkit/gateway-ca.crt"]\n`,
    );
  }
  for (const host of ['10.0.0.1', ...PLAIN.aliases.map((alias) => alias.host)]) {
    expect(file('buildkit', PLAIN, path)).toContain(`[registry."${host}:8080"]\n  http = true\n`);
  }
  expect(file('buildkit', FACTS, path)).not.toMatch(/ca =|http =/);
});

test.each([
  ['kind', '/etc/registry-gateway/kind/certs.d'],
  ['minikube', '~/.minikube/files/etc/containerd/certs.d'],
] as const)('%s: containerd’s file where its nodes will see it', (kind, folder) => {
  expect(file(kind, LOCAL, `${folder}/_default/hosts.toml`)).toContain(
    'ca = "/etc/containerd/certs.d/_default/gateway-ca.crt"',
  );
  expect(file(kind, LOCAL, `${folder}/_default/gateway-ca.crt`)).toContain('BEGIN CERTIFICATE');
  expect(clientConfiguration(kind, LOCAL).notes.join('\n')).toContain('localhost is the node itself');
  expect(clientConfiguration(kind, FACTS).notes.join('\n')).not.toContain('the node itself');
});

test('kind: the cluster mounts the folder', () => {
  const { nodes } = parse(file('kind', FACTS, 'kind-cluster.yaml')) as { nodes: { extraMounts: unknown[] }[] };
  expect(nodes[0]?.extraMounts).toEqual([
    { hostPath: '/etc/registry-gateway/kind/certs.d', containerPath: '/etc/containerd/certs.d', readOnly: true },
  ]);
});

test.each(['podman', 'cri-o', 'k3s', 'buildkit'] as const)(
  '%s: a pattern of the table is told, not written',
  (kind) => {
    const { files, notes } = clientConfiguration(kind, { ...FACTS, patterns: ['*.pkg.dev'] });
    expect(files.map(({ content }) => content).join('')).not.toContain('*');
    expect(notes.join('\n')).toContain('*.pkg.dev');
  },
);

test('as text: each file under its path, and every line of a note is a comment', () => {
  const text = configurationText(clientConfiguration('docker', LOCAL));
  const [, ...parts] = text.split(/^# ---- /m);
  expect(parts.map((part) => part.split('\n')[0])).toEqual(
    clientConfiguration('docker', LOCAL).files.map(({ path }) => path),
  );
  const notes = text.slice(text.lastIndexOf('# Docker 29'));
  expect(
    notes
      .trimEnd()
      .split('\n')
      .every((line) => line.startsWith('#')),
  ).toBe(true);
});

describe.each(CLIENT_KINDS)('%s', (kind) => {
  test('says how to trust a root that is not made yet', () => {
    const early = { ...LOCAL, ca: { pem: null, file: '/data/ca.crt' } };
    const { notes, files } = clientConfiguration(kind, early);
    expect(notes[0]).toContain('copy /data/ca.crt to ');
    expect(files.filter(({ path }) => path.endsWith('.crt'))).toEqual([]);
  });

  test('says where credentials go, where they are required', () => {
    const written = clientConfiguration(kind, { ...FACTS, credentials: true });
    expect(written.notes.join('\n')).toMatch(/credentials|USER/);
    expect(clientConfiguration(kind, FACTS).notes.join('\n')).not.toMatch(/credentials|USER/);
  });

  test('writes an IPv6 address in brackets', () => {
    const text = configurationText(clientConfiguration(kind, { ...FACTS, domain: '2001:db8::1', port: 8443 }));
    expect(text).toContain('[2001:db8::1]:8443');
    // NO_PROXY has addresses without brackets (golang.org/x/net/http/httpproxy).
    expect(text.replace(/^.*NO_PROXY=.*$/m, '')).not.toMatch(/[^[]2001:db8/);
  });
});
