import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { type ClientFacts, clientConfiguration } from '../../../src/admin/clients.ts';
import { CLIENT_KINDS } from '../../../src/admin/contract.ts';

const FACTS: ClientFacts = {
  domain: 'cr.example.com',
  scheme: 'https',
  port: null,
  ca: null,
  registries: ['docker.io', 'quay.io', 'registry.corp:5000'],
  aliases: [
    { name: 'docker', host: 'docker.cr.example.com', registry: 'docker.io' },
    { name: 'quay', host: 'quay.cr.example.com', registry: 'quay.io' },
    { name: 'corp', host: 'corp.cr.example.com', registry: 'registry.corp:5000' },
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

test('containerd: one file for every registry, and the prefix shape for a single one', () => {
  expect(file('containerd', FACTS, '/etc/containerd/certs.d/_default/hosts.toml')).toBe(
    '[host."https://cr.example.com"]\n  capabilities = ["pull", "resolve"]\n',
  );
  expect(file('containerd', LOCAL, '/etc/containerd/certs.d/_default/hosts.toml')).toContain(
    'ca = "/etc/containerd/certs.d/_default/gateway-ca.crt"',
  );
  const notes = clientConfiguration('containerd', FACTS).notes.join('\n');
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
  expect(parse(file('k3s', { ...LOCAL, credentials: true }, path)).configs).toEqual({
    'localhost:8443': {
      auth: { username: 'USER', password: 'TOKEN' },
      tls: { ca_file: '/etc/rancher/k3s/gateway-ca.crt' },
    },
  });
});

test('buildkit: each registry below the bare domain', () => {
  const path = '/etc/buildkit/buildkitd.toml';
  expect(file('buildkit', FACTS, path)).toContain('[registry."quay.io"]\n  mirrors = ["cr.example.com/quay.io"]\n');
  expect(file('buildkit', LOCAL, path)).toContain(
    '[registry."localhost:8443"]\n  ca = ["/etc/buildkit/gateway-ca.crt"]\n',
  );
  expect(file('buildkit', PLAIN, path)).toContain('[registry."10.0.0.1:8080"]\n  http = true\n');
});

describe.each(CLIENT_KINDS)('%s', (kind) => {
  test('says how to trust a root that is not made yet', () => {
    const early = { ...LOCAL, ca: { pem: null, file: '/data/ca.crt' } };
    const { notes, files } = clientConfiguration(kind, early);
    expect(notes[0]).toContain('copy /data/ca.crt to ');
    expect(files).toHaveLength(1);
  });

  test('says where credentials go, where they are required', () => {
    const written = clientConfiguration(kind, { ...FACTS, credentials: true });
    expect(written.notes.join('\n')).toMatch(/credentials|USER/);
    expect(clientConfiguration(kind, FACTS).notes.join('\n')).not.toMatch(/credentials|USER/);
  });

  test('writes an IPv6 address in brackets', () => {
    const text = clientConfiguration(kind, { ...FACTS, domain: '2001:db8::1', port: 8443 }).files[0]?.content;
    expect(text).toContain('[2001:db8::1]:8443');
    expect(text).not.toMatch(/[^[]2001:db8/);
  });
});
