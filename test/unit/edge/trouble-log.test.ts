import { expect, test } from 'vitest';
import { TroubleLog } from '../../../src/edge/trouble-log.ts';

const trouble = {
  kind: 'failed',
  registry: 'quay.io',
  row: 'quay.io',
  status: 502,
  reason: 'mirror.corp: it refuses connections',
  what: 'org/app v1',
} as const;

test('says why, once a minute for one registry, and how many were left out', () => {
  let now = 0;
  const lines: { fields: Record<string, unknown>; message: string }[] = [];
  const warn = (fields: object, message: string) => void lines.push({ fields: fields as never, message });
  const log = new TroubleLog({ warn } as never, () => now);
  for (let n = 0; n < 100; n++) log.tell(trouble);
  log.tell({ ...trouble, registry: 'ghcr.io', row: 'ghcr.io' });
  log.tell({ ...trouble, kind: 'stale', status: 200 });
  expect(lines.map(({ message }) => message)).toEqual([
    'a request was not served (502 for quay.io/org/app v1): mirror.corp: it refuses connections',
    'a request was not served (502 for ghcr.io/org/app v1): mirror.corp: it refuses connections',
    "a kept answer was served in place of the registry's (200 for quay.io/org/app v1): mirror.corp: it refuses connections",
  ]);
  // Of a pattern's hosts there is no end.
  for (let n = 0; n < 100; n++) log.tell({ ...trouble, registry: `a${n}.pkg.dev`, row: '*.pkg.dev' });
  expect(lines).toHaveLength(4);
  now = 60_000;
  log.tell(trouble);
  expect(lines.at(-1)).toMatchObject({ fields: { leftOut: 99 }, message: expect.stringContaining('99 more of these') });
  now = 120_000;
  log.tell(trouble);
  expect(lines.at(-1)?.fields).not.toHaveProperty('leftOut');
});
