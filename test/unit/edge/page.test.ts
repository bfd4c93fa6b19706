import { describe, expect, test } from 'vitest';
import { isInternalHost, isUnlisted } from '../../../src/aliases/discretion.ts';
import type { ClientFacts } from '../../../src/clients/facts.ts';
import { SYMPTOMS } from '../../../src/edge/page/symptoms.ts';
import { TEXTS } from '../../../src/edge/page/texts.ts';
import { forStrangers, isStranger } from '../../../src/edge/page/visible.ts';

describe('what a stranger is told', () => {
  const entry = {
    host: 'quay.io',
    endpoints: [],
    proxy: null,
    credentials: null,
    public: false,
    realms: [],
    named: [],
    ca: null,
  };
  const credentials = { username: 'ada', password: 'secret' };

  test.each([
    ['10.0.0.5:5000', true],
    ['[fd00::1]:5000', true],
    ['localhost:5000', true],
    ['registry', true],
    ['registry:5000', true],
    ['harbor.corp', true],
    ['*.svc.cluster.local', true],
    ['nexus.team.internal', true],
    ['8.8.8.8', false],
    ['[2606:4700::1]', false],
    ['quay.io', false],
    ['localhost.example.com', false],
    ['*.pkg.dev', false],
  ])('%s is internal: %s', (host, internal) => {
    expect(isInternalHost(host)).toBe(internal);
    expect(isUnlisted({ ...entry, host })).toBe(internal);
  });

  test('a registry that only its operator’s credentials open is not listed', () => {
    expect(isUnlisted({ ...entry, credentials })).toBe(true);
    expect(isUnlisted({ ...entry, credentials, public: true })).toBe(false);
  });

  test('nothing of those registries, their aliases and aliases that are internal hosts', () => {
    const alias = (name: string, registry: string) => ({ name, registry, host: name, certificate: true });
    const facts = {
      registries: ['quay.io', 'registry.corp:5000'],
      patterns: ['*.pkg.dev', '*.corp.internal'],
      aliases: [alias('quay', 'quay.io'), alias('corp', 'registry.corp:5000'), alias('hub.corp.lan', 'quay.io')],
    } as unknown as ClientFacts;
    const outlines = [...facts.registries, ...facts.patterns].map((host) => ({
      host,
      wellbeing: 'well' as const,
      unlisted: isInternalHost(host),
    }));
    const told = forStrangers(facts, outlines);
    expect([told.registries, told.patterns, told.aliases.map(({ name }) => name)]).toEqual([
      ['quay.io'],
      ['*.pkg.dev'],
      ['quay'],
    ]);
  });

  test.each([
    ['somebody at a public gateway', { known: false, address: '198.51.100.7' }, { domain: 'cr.example.com' }, true],
    ['a neighbour at a public gateway', { known: false, address: '10.0.0.7' }, { domain: 'cr.example.com' }, true],
    ['a user', { known: true, address: '198.51.100.7' }, { domain: 'cr.example.com' }, false],
    ['a neighbour at a private gateway', { known: false, address: '10.0.0.7' }, { domain: 'cr.lan' }, false],
    ['somebody far at a private gateway', { known: false, address: '8.8.8.8' }, { domain: 'cr.lan' }, true],
    [
      'one behind a public name',
      { known: false, address: '10.0.0.7' },
      { domain: 'cr.lan', publicHost: 'cr.example.com' },
      true,
    ],
    ['one without an address', { known: false, address: '' }, { domain: 'localhost' }, true],
  ])('%s: %#', (_, asker, gateway, stranger) => {
    expect(isStranger(asker, gateway)).toBe(stranger);
  });
});

test('every sentence is there in both languages, and no English one in the Chinese', () => {
  const shown = (text: unknown): string =>
    typeof text === 'object' ? JSON.stringify(text) : String(typeof text === 'function' ? text('x') : text);
  for (const [key, { en, zh }] of Object.entries(TEXTS)) {
    expect(shown(en), key).not.toBe('');
    expect(shown(zh), key).toMatch(/\p{Script=Han}/u);
    expect(shown(en), key).not.toMatch(/\p{Script=Han}/u);
  }
  for (const { means, todo } of SYMPTOMS) {
    for (const text of [means, todo]) {
      expect(text.zh).toMatch(/\p{Script=Han}/u);
      expect(text.en).not.toBe('');
    }
  }
});
