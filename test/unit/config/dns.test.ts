import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { loadConfig } from '../../../src/config/load.ts';
import { settingTexts } from '../../../src/config/show.ts';

const SECRET = 'geheim-0123456789abcdef';
const BASE64 = 'c2VjcmV0LWJ5dGVz';

function load(acme: object, { domain = 'cr.example.com', files = {} as Record<string, string> } = {}) {
  const cwd = mkdtempSync(join(tmpdir(), 'config-dns-'));
  onTestFinished(() => rmSync(cwd, { recursive: true, force: true }));
  for (const [file, content] of Object.entries(files)) writeFileSync(join(cwd, file), content);
  // JSON is YAML.
  writeFileSync(join(cwd, 'gateway.yaml'), JSON.stringify({ domain, acme }));
  return loadConfig({ env: {}, cwd, cores: 2, terminal: false });
}

const RFC = { provider: 'rfc2136', server: 'ns1.example.com', keyId: 'gw.', secret: BASE64 };

it.each([
  [
    'dns-01 without a provider',
    { challenges: ['dns-01'] },
    /acme\.challenges: names dns-01, which needs acme\.dns\.provider/,
  ],
  [
    'a wildcard without a provider',
    { wildcard: true },
    /acme\.wildcard: .*proved by dns-01 alone: set acme\.dns\.provider/,
  ],
  [
    'a wildcard without dns-01',
    { wildcard: true, challenges: ['http-01'], dns: RFC },
    /acme\.wildcard: .*name dns-01 in acme\.challenges/,
  ],
  [
    'no server',
    { dns: { provider: 'rfc2136', keyId: 'gw.', secret: BASE64 } },
    /acme\.dns\.server: is missing: rfc2136/,
  ],
  ['no key', { dns: { provider: 'alidns', secret: SECRET } }, /acme\.dns\.keyId: is missing: alidns needs it/],
  [
    'no secret',
    { dns: { provider: 'cloudflare' } },
    /acme\.dns\.secret: is missing: .*GATEWAY_ACME_DNS_SECRET.* acme\.dns\.secretFile/,
  ],
  ['no program', { dns: { provider: 'exec' } }, /acme\.dns\.program: is missing: exec needs it/],
  [
    'what another provider takes',
    { dns: { provider: 'cloudflare', secret: SECRET, server: 'ns1.example.com' } },
    /acme\.dns\.server: is set, and cloudflare has no use for it/,
  ],
  ['a secret for a program', { dns: { provider: 'exec', program: '/bin/true', secret: SECRET } }, /has no use for it/],
  [
    'two secrets',
    { dns: { provider: 'cloudflare', secret: SECRET, secretFile: 'token' } },
    /acme\.dns\.secretFile: is set beside acme\.dns\.secret/,
  ],
  [
    'a file that is not there',
    { dns: { provider: 'cloudflare', secretFile: 'none' } },
    /"none" cannot be read: ENOENT/,
  ],
  ['an empty file', { dns: { provider: 'cloudflare', secretFile: 'empty' } }, /"empty" is empty/],
  ['a TSIG secret that is none', { dns: { ...RFC, secret: SECRET } }, /acme\.dns\.secret: is no base64 text/],
  [
    'a file with such a one',
    { dns: { ...RFC, secret: undefined, secretFile: 'token' } },
    /acme\.dns\.secretFile: "token" has no base64 text/,
  ],
])('%s is refused, in words that have no secret', (_, acme, words) => {
  const attempt = () => load(acme, { files: { token: SECRET, empty: '\n' } });
  expect(attempt).toThrow(words);
  expect(attempt).not.toThrow(SECRET);
});

it.each(['203.0.113.7', 'localhost'])('a wildcard below %s is refused', (domain) => {
  expect(() => load({ wildcard: true, dns: RFC }, { domain })).toThrow(/is no domain that has names below it/);
});

it.each([
  RFC,
  { provider: 'exec', program: '/bin/true' },
  { provider: 'cloudflare', secret: SECRET },
  { provider: 'alidns', keyId: 'LTAI', secret: SECRET },
  { provider: 'dnspod', keyId: '13490', secret: SECRET },
])('$provider is taken, dns-01 goes with it, and its secret is not shown', (dns) => {
  const loaded = load({ dns, wildcard: true });
  expect(loaded.config.acme).toMatchObject({ challenges: ['dns-01'], wildcard: true, dns: { provider: dns.provider } });
  const shown = JSON.stringify([...settingTexts(loaded.config)]);
  expect(shown).toContain(dns.provider);
  for (const secret of [SECRET, BASE64]) expect(shown).not.toContain(secret);
});
