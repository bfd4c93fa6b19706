import { describe, expect, test } from 'vitest';
import { handoverEnv, takeHandover } from '../../../src/cli/handover.ts';
import { loadConfig } from '../../../src/config/load.ts';

const load = (env: Record<string, string>) => loadConfig({ env, cwd: '/srv', cores: 2, terminal: false });

describe('what the serving program is handed', () => {
  test('is exactly what was read: listeners on every address, what is off, secrets, warnings', () => {
    const { config, warnings } = load({
      GATEWAY_DOMAIN: 'cr.example.com',
      GATEWAY_METRICS_LISTEN: 'off',
      GATEWAY_UPSTREAM_PROXY: 'http://user:paß@proxy.example:3128',
      GATEWAY_ACCESS_DENY: '192.0.2.0/24,2001:db8::/32',
      GATEWAY_LIMITS_BYTES_PER_DAY: '7TiB',
      GATEWAY_DOMAYN: 'x',
    });
    const issuer = { directory: 'https://ca.example/', caFile: null, eab: { keyId: 'k', hmacKey: 'h' }, profile: null };
    const full = { ...config, acme: { ...config.acme, issuers: [issuer] } };
    expect(full.listen.https).toStrictEqual({ host: undefined, port: 443 });
    expect(warnings).toHaveLength(1);
    const env = { HOME: '/root', ...handoverEnv({ config: full, warnings }) };
    expect(takeHandover(env)).toStrictEqual({ config: full, warnings });
    expect(env).toEqual({ HOME: '/root' });
  });

  test('is nothing where it is longer than the system takes', () => {
    const { config, warnings } = load({});
    const deny = Array.from({ length: 20_000 }, (_, n) => `10.${n >> 8}.${n & 255}.0/24`);
    expect(handoverEnv({ config: { ...config, access: { ...config.access, deny } }, warnings })).toBeNull();
    const [value = ''] = Object.values(handoverEnv({ config, warnings }) ?? {});
    expect(value.length).toBeGreaterThan(0);
  });

  test('is missed by whoever starts that program by itself', () => {
    expect(() => takeHandover({})).toThrow(
      expect.objectContaining({ usage: true, next: 'start it with: gateway serve' }),
    );
  });
});
