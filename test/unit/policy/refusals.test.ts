import { expect, test } from 'vitest';
import { Refusals } from '../../../src/policy/refusals.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';

test('each refusal is counted, and one a minute of a registry and ground is told, with how many there were', async () => {
  const metrics = new Metrics();
  const lines: [object, string][] = [];
  let now = 0;
  const log = { info: (fields: object, text: string) => void lines.push([fields, text]) };
  const refusals = new Refusals(
    metrics,
    log as never,
    (registry) => (registry === 'eu.pkg.dev' ? '*.pkg.dev' : registry),
    () => now,
  );
  const refuse = (registry: string, ground: 'tag' | 'repository' = 'tag') =>
    refusals.note({ registry, image: `${registry}/a:1`, ground });
  for (let n = 0; n < 5; n++) refuse('quay.io');
  refuse('eu.pkg.dev');
  refuse('quay.io', 'repository');
  expect(lines.map(([, text]) => text)).toEqual([
    'policy.images refused quay.io/a:1',
    'policy.images refused eu.pkg.dev/a:1',
    'policy.images refused quay.io/a:1',
  ]);
  now = 60_000;
  refuse('quay.io');
  expect(lines.at(-1)).toEqual([
    { image: 'quay.io/a:1', ground: 'tag', leftOut: 4 },
    'policy.images refused quay.io/a:1; 4 more of quay.io since the last such line',
  ]);
  expect(await metrics.total('policy_refusals_total', { registry: 'quay.io', ground: 'tag' })).toBe(6);
  expect(await metrics.total('policy_refusals_total', { registry: '*.pkg.dev' })).toBe(1);
});
