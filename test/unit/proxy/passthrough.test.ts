import { expect, test } from 'vitest';
import { Passthrough } from '../../../src/proxy/passthrough.ts';
import type { Upstream } from '../../../src/upstream/upstream.ts';
import { contentOf, readAll } from '../../support/cache-rig.ts';

test.each([200, 206] as const)(
  'the rest of a body whose cache failed counts what was fetched for it (%i)',
  async (status) => {
    const { bytes, key } = contentOf(Buffer.from('0123456789'));
    let at = status === 200 ? 0 : 4;
    const source = {
      length: undefined,
      async pull(into: Uint8Array): Promise<number> {
        const count = bytes.copy(into, 0, at, at + 3);
        at += count;
        return count;
      },
      async close(): Promise<void> {},
    };
    const upstream = { openBlob: async () => ({ status, size: 10, source }) } as unknown as Upstream;
    let fetched = 0;
    const client = { signal: AbortSignal.timeout(10_000), client: '192.0.2.1' };
    const rest = await new Passthrough(upstream).rest(key, 4, client, (count) => {
      fetched += count;
    });
    expect(String(await readAll(rest))).toBe('456789');
    expect(fetched).toBe(status === 200 ? 10 : 6);
  },
);
