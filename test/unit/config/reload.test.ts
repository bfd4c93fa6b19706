import { describe, expect, it } from 'vitest';
import { KEYS } from '../../../src/config/config.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { compareConfigs, RELOADING } from '../../../src/config/reload.ts';

const load = (env: Record<string, string>) =>
  loadConfig({ env: { GATEWAY_CONFIG: '/dev/null', ...env }, cwd: '/tmp', cores: 2, terminal: false }).config;

/** Every key at its place, whatever it says of it. */
const shape = (tree: object): unknown =>
  Object.fromEntries(
    Object.entries(tree).map(([name, entry]) => [name, isKey(entry) ? 'key' : shape(entry as object)]),
  );
const isKey = (entry: unknown) =>
  typeof entry === 'string' || typeof (entry as { value?: unknown }).value === 'function';

it('says of every key of the configuration, and of no other, whether it takes effect at once', () => {
  expect(shape(RELOADING)).toEqual(shape(KEYS));
});

describe('what is read again', () => {
  it('is nothing new where nothing has changed', () => {
    const config = load({});
    expect(compareConfigs(config, load({}))).toEqual({ config, changed: [], restart: [] });
  });

  it('takes what is live and leaves what needs a restart, each named with both values as the file has them', () => {
    const before = load({ GATEWAY_CACHE_TAG_TTL: '90s', GATEWAY_ACCESS_ALLOW: '10.0.0.0/8' });
    const after = load({ GATEWAY_CACHE_TAG_TTL: '2h', GATEWAY_LOG_LEVEL: 'debug', GATEWAY_METRICS_LISTEN: 'off' });
    const { config, changed, restart } = compareConfigs(before, after);
    expect(changed).toEqual([
      { key: 'cache.tagTtl', from: '90s', to: '2h' },
      { key: 'access.allow', from: '10.0.0.0/8', to: 'none' },
      { key: 'log.level', from: 'info', to: 'debug' },
    ]);
    expect(restart).toEqual([{ key: 'metrics.listen', from: '127.0.0.1:9464', to: 'off' }]);
    expect(config).toEqual({ ...after, metrics: before.metrics });
  });

  it('shows no secret', () => {
    const before = load({ GATEWAY_UPSTREAM_PROXY: 'http://me:hidden-one@proxy.example:3128' });
    const after = load({ GATEWAY_UPSTREAM_PROXY: 'http://me:hidden-two@proxy.example:3128' });
    const { changed, restart } = compareConfigs(before, after);
    expect([...changed, ...restart]).toHaveLength(1);
    expect(JSON.stringify([changed, restart])).not.toContain('hidden');
  });
});
