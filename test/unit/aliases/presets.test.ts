import { describe, expect, test } from 'vitest';
import { AliasTable } from '../../../src/aliases/alias-table.ts';
import type { RegistryDeclaration } from '../../../src/aliases/import-export.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryAliasStore } from '../../support/alias-store.ts';

const alias = (name: string, certificate = true) => ({ name, certificate });
const EARLIER: RegistryDeclaration[] = [
  {
    host: 'docker.io',
    endpoints: ['https://mirror.corp.example'],
    proxy: 'http://127.0.0.1:1',
    aliases: [alias('docker')],
  },
  { host: 'k8s.gcr.io', aliases: [alias('k8s-gcr')] },
  { host: 'gone.test', aliases: [alias('gone'), alias('hf')] },
];
const PRESETS: RegistryDeclaration[] = [
  { host: 'docker.io', endpoints: ['https://registry-1.docker.io'], aliases: [alias('docker')] },
  { host: 'k8s.gcr.io', endpoints: ['https://registry.k8s.io', 'https://k8s.gcr.io'], aliases: [alias('k8s-gcr')] },
  { host: 'gone.test', aliases: [alias('gone', false)] },
  { host: 'hf.co', aliases: [alias('hf')] },
  { host: 'registry.ollama.ai', aliases: [alias('ollama', false)] },
  { host: '*.pkg.dev', aliases: [] },
];

const table = () =>
  AliasTable.open({ store: new MemoryAliasStore(), domain: 'cr.example.com', seed: () => EARLIER, log: silentLog() });

describe('the presets of a later version', () => {
  test('are shown first, and change nothing', async () => {
    const one = await table();
    const before = one.snapshot();
    expect(await one.presets(PRESETS, false)).toEqual({
      differences: [
        'k8s.gcr.io is fetched from https://registry.k8s.io, https://k8s.gcr.io',
        'the registry hf.co is added, fetched from https://hf.co',
        'the registry registry.ollama.ai is added, fetched from https://registry.ollama.ai',
        'the registry *.pkg.dev is added, fetched from https://*.pkg.dev',
        'the alias ollama is added for registry.ollama.ai, without a certificate',
      ],
      kept: [
        'docker.io stays at https://mirror.corp.example; this version has https://registry-1.docker.io',
        'the alias hf stays with gone.test; this version has it for hf.co',
      ],
      certificates: 0,
    });
    expect(one.snapshot()).toBe(before);
  });

  test('are taken, but for what somebody chose', async () => {
    const one = await table();
    await one.presets(PRESETS, true);
    const { registries, aliases } = one.snapshot();
    expect(registries.get('docker.io')).toMatchObject({
      endpoints: ['https://mirror.corp.example'],
      proxy: 'http://127.0.0.1:1',
    });
    expect(registries.get('k8s.gcr.io')?.endpoints).toEqual(['https://registry.k8s.io', 'https://k8s.gcr.io']);
    expect([...registries.keys()]).toContain('*.pkg.dev');
    expect(aliases.get('ollama')).toMatchObject({ registry: 'registry.ollama.ai', certificate: false });
    expect([aliases.get('hf')?.registry, aliases.get('gone')?.certificate]).toEqual(['gone.test', true]);
    expect((await one.presets(PRESETS, true)).differences).toEqual([]);
  });

  test('bring nobody’s credentials to another host', async () => {
    const one = await table();
    await one.setRegistry('k8s.gcr.io', { credentials: { username: 'u', password: 'p' } });
    const { kept } = await one.presets(PRESETS, true);
    expect(kept.join('\n')).toContain('k8s.gcr.io stays at https://k8s.gcr.io');
    expect(one.snapshot().registries.get('k8s.gcr.io')?.endpoints).toEqual(['https://k8s.gcr.io']);
  });
});
