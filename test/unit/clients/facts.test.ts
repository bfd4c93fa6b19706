import { expect, test } from 'vitest';
import { authority, baseUrl, gatherFacts } from '../../../src/clients/facts.ts';

type Surroundings = Parameters<typeof gatherFacts>[0];

const listen = { https: { host: undefined, port: 8443 }, http: { host: undefined, port: 8080 }, workers: 1 };
const table: Surroundings['table'] = {
  domain: 'cr.example.com',
  registries: new Map([
    ['quay.io', {}],
    ['docker.io', {}],
    ['*.pkg.dev', {}],
  ]),
  hosts: new Map([
    ['quay.cr.example.com', { name: 'quay', host: 'quay.cr.example.com', registry: 'quay.io', certificate: true }],
  ]),
};

async function urlOf(config: Partial<Surroundings['config']>, bound: Surroundings['bound'] = {}): Promise<string> {
  const whole = { tls: { mode: 'acme' }, publicDomain: true, publicUrl: null, listen, dataDir: '/nowhere', ...config };
  return baseUrl(await gatherFacts({ config: whole as Surroundings['config'], table, bound, credentials: false }));
}

test('clients are told where the gateway listens, without the port that is the scheme’s own', async () => {
  expect(await urlOf({})).toBe('https://cr.example.com:8443');
  expect(await urlOf({}, { https: 443, http: 80 })).toBe('https://cr.example.com');
  expect(await urlOf({ tls: { mode: 'off' }, publicDomain: false })).toBe('http://cr.example.com:8080');
  expect(await urlOf({ tls: { mode: 'off' } })).toBe('https://cr.example.com');
});

test('or where the operator says that they find it, aliases at the same port', async () => {
  expect(await urlOf({ publicUrl: 'https://pull.example.com:9443' }, { https: 443 })).toBe(
    'https://pull.example.com:9443',
  );
  expect(await urlOf({ publicUrl: 'http://10.0.0.1' })).toBe('http://10.0.0.1');
  expect(await urlOf({ publicUrl: 'https://[2001:db8::1]:9443' })).toBe('https://[2001:db8::1]:9443');
  const config = {
    tls: { mode: 'acme' },
    publicDomain: true,
    publicUrl: 'https://cr.example.com:9443',
    listen,
    dataDir: '/',
  };
  const facts = await gatherFacts({ config: config as Surroundings['config'], table, bound: {}, credentials: false });
  expect(authority(facts, facts.aliases[0]?.host)).toBe('quay.cr.example.com:9443');
  expect(facts.registries).toEqual(['docker.io', 'quay.io']);
  expect(facts.patterns).toEqual(['*.pkg.dev']);
});
