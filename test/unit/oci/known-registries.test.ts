import { expect, test } from 'vitest';
import { renderError } from '../../../src/oci/errors.ts';
import { canonicalRegistry, shutDownIn } from '../../../src/oci/known-registries.ts';
import { StatusError, toRegistryError } from '../../../src/upstream/failures.ts';

test('a 404, 401 or 403 of docker.io/bitnami says where its images may be, and no other does', () => {
  const told = (registry: string, repository: string, status = 404) =>
    renderError(
      toRegistryError(new StatusError(status, 'h.test'), {
        registry,
        repository,
        missing: 'manifestUnknown',
        reference: '15',
      }),
    ).body;
  expect(told('docker.io', 'bitnami/postgresql')).toContain('docker.io/bitnamilegacy/postgresql');
  expect(told('docker.io', 'bitnami/postgresql')).toContain('has no manifest 15');
  for (const status of [401, 403]) {
    expect(told('docker.io', 'bitnami/postgresql', status)).toContain('docker.io/bitnamilegacy/postgresql');
    expect(told('docker.io', 'org/private', status)).toContain('its operator sets credentials');
  }
  expect(told('docker.io', 'bitnami/postgresql', 500)).not.toContain('bitnamilegacy');
  expect(told('quay.io', 'bitnami/postgresql')).not.toContain('bitnamilegacy');
  expect(told('docker.io', 'library/postgres')).toContain('check the tag or digest');
});

test('names that only look like Docker Hub are registries of their own', () => {
  for (const host of [
    'docker.io.evil.test',
    'registry-1.docker.io:5000',
    'registry-2.docker.io',
    'hub.docker.com',
    'quay.io:443',
  ])
    expect(canonicalRegistry(host)).toBe(host);
});

test('a registry that was shut down is known by its own host alone', () => {
  expect([shutDownIn('registry.jujucharms.com'), shutDownIn('mirror.corp.example')]).toEqual(['2022', null]);
});
