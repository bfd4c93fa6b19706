import { chmodSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../../../src/config/load.ts';
import { settingTexts } from '../../../src/config/show.ts';

const load = (env: Record<string, string>, yaml = '') => {
  const cwd = mkdtempSync(join(tmpdir(), 'config-'));
  writeFileSync(join(cwd, 'gateway.yaml'), yaml);
  return loadConfig({ env, cwd, cores: 2, terminal: false });
};
const SHARED = { GATEWAY_DATABASE: 'postgres://gateway@db.example/gateway', GATEWAY_SECRET_FILE: '/run/secrets/keys' };

describe('a shared database', () => {
  it('is none where nothing is set', () => {
    const { config } = load({});
    expect(config).toMatchObject({ database: null, secretFile: null, cluster: { listen: null, address: null } });
  });

  it('needs the keys that encrypt in it', () => {
    expect(() => load({ GATEWAY_DATABASE: SHARED.GATEWAY_DATABASE })).toThrow(/secretFile: is missing/);
  });

  it.each([
    ['mysql://db/x', /scheme mysql:/],
    ['db.example', /is not a URL/],
    ['postgres://db/x?password=geheim', /password in its query/],
  ])('%s is refused, without being repeated', (database, why) => {
    const attempt = () => load({ ...SHARED, GATEWAY_DATABASE: database });
    expect(attempt).toThrow(why);
    expect(attempt).not.toThrow(/geheim/);
  });

  it('hides a password of its URL, and says where it belongs', () => {
    const { config, warnings } = load({ ...SHARED, GATEWAY_DATABASE: 'postgres://gateway:geheim@db.example/gateway' });
    expect(settingTexts(config).find(({ key }) => key === 'database')?.value).toBe('postgres://***@db.example/gateway');
    expect(warnings).toEqual([expect.stringContaining('GATEWAY_DATABASE_PASSWORD_FILE')]);
    expect(JSON.stringify(warnings)).not.toContain('geheim');
  });

  it('says where everybody may read its keys', () => {
    const keys = join(mkdtempSync(join(tmpdir(), 'keys-')), 'keys');
    for (const [mode, warnings] of [
      [0o600, []],
      [0o644, [expect.stringContaining(`everybody on this machine may read the keys in ${keys}`)]],
    ] as const) {
      writeFileSync(keys, 'x');
      chmodSync(keys, mode);
      expect(load({ ...SHARED, GATEWAY_SECRET_FILE: keys }).warnings).toEqual(warnings);
    }
  });

  it('takes its password from a file that a variable names', () => {
    const { config, warnings } = load({ ...SHARED, GATEWAY_DATABASE_PASSWORD_FILE: '/run/secrets/password' });
    expect(config.databasePasswordFile).toBe('/run/secrets/password');
    expect(warnings).toEqual([]);
    expect(load({ GATEWAY_DATABASE_PASSWORD_FIL: 'x' }).warnings).toEqual([
      expect.stringContaining('did you mean GATEWAY_DATABASE_PASSWORD_FILE?'),
    ]);
  });
});

describe('where other gateways reach this one', () => {
  it('listens on the port of its address', () => {
    const { cluster } = load({ ...SHARED, GATEWAY_CLUSTER_ADDRESS: 'GW1.internal:7443' }).config;
    expect(cluster).toEqual({ listen: { host: undefined, port: 7443 }, address: 'gw1.internal:7443' });
  });

  it('is reached where it listens, if that names a host', () => {
    const { cluster } = load({ ...SHARED, GATEWAY_CLUSTER_LISTEN: '[fd00::5]:7443' }).config;
    expect(cluster.address).toBe('[fd00::5]:7443');
    expect(() => load({ ...SHARED, GATEWAY_CLUSTER_LISTEN: ':7443' })).toThrow(/cluster.address: is missing/);
  });

  it.each(['7443', 'gw1', 'gw1:0', 'gw1:70000', '[gw1]:7443', 'a b:7443'])('%s is no address', (address) => {
    expect(() => load({ ...SHARED, GATEWAY_CLUSTER_ADDRESS: address })).toThrow(/cluster.address: /);
  });

  it('is nothing without a shared database', () => {
    expect(() => load({ GATEWAY_CLUSTER_ADDRESS: 'gw1:7443' })).toThrow(/cluster.address: is set, and there are no/);
    expect(() => load({ ...SHARED, GATEWAY_CLUSTER_ADDRESS: 'gw1:7443' }, 'cluster: {listen: off}')).toThrow(/is off/);
  });
});
