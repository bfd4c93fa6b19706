import { expect, test } from 'vitest';
import type { TableSnapshot } from '../../../src/aliases/table.ts';
import { Routes } from '../../../src/edge/target.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { snapshotOf } from '../../support/edge-bed.ts';

const DOMAIN = 'cr.example.com';
const withoutQuay = snapshotOf(DOMAIN, ['docker.io'], { hub: 'docker.io' });
const withQuay = snapshotOf(DOMAIN, ['docker.io', 'quay.io'], { hub: 'quay.io' });

function routes(table: TableSnapshot) {
  const state = { table };
  const remembering = new Routes(() => state.table);
  const resolve = (path: string, query = '', host = DOMAIN) => remembering.resolve({ host, port: '', path, query });
  return { state, resolve };
}

test('a route is remembered for as long as the table stays', () => {
  const { state, resolve } = routes(withoutQuay);
  const first = resolve('/v2/org/app/manifests/1', '', `hub.${DOMAIN}`);
  expect(first?.target).toMatchObject({ registry: 'docker.io', repository: 'org/app' });
  expect(resolve('/v2/org/app/manifests/1', '', `hub.${DOMAIN}`)).toBe(first);
  state.table = withQuay;
  expect(resolve('/v2/org/app/manifests/1', '', `hub.${DOMAIN}`)?.target.registry).toBe('quay.io');
});

test('host, path and query each lead elsewhere', () => {
  const { resolve } = routes(withQuay);
  const found = [
    resolve('/v2/org/app/manifests/1'),
    resolve('/v2/org/app/manifests/1', 'ns=quay.io'),
    resolve('/v2/org/app/manifests/1', '', `hub.${DOMAIN}`),
    resolve('/v2/org/app/manifests/2'),
  ];
  expect(found.map((route) => `${route?.target.registry} ${route?.ns}`)).toEqual([
    'docker.io undefined',
    'quay.io quay.io',
    'quay.io undefined',
    'docker.io undefined',
  ]);
  expect(resolve('/readyz')).toBeNull();
  expect(resolve('/readyz')).toBeNull();
});

test('a refusal is made anew each time', () => {
  const { state, resolve } = routes(withoutQuay);
  const refused = () => resolve('/v2/quay.io/org/app/manifests/1');
  expect(refused).toThrow(RegistryError);
  expect(refused).toThrow(RegistryError);
  state.table = withQuay;
  expect(refused()?.target.registry).toBe('quay.io');
});

test('more routes than are remembered, and long ones, are found all the same', () => {
  const { resolve } = routes(withoutQuay);
  for (let n = 0; n < 5_000; n++)
    expect(resolve(`/v2/org/app/manifests/t${n}`)?.target.what).toMatchObject({ reference: { tag: `t${n}` } });
  const long = `/v2/${'a/'.repeat(120)}app/tags/list`;
  expect(resolve(long, `last=${'x'.repeat(600)}`)?.target.what).toMatchObject({ last: 'x'.repeat(600) });
});
