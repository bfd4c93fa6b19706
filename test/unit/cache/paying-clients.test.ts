import { expect, test } from 'vitest';
import { endRig, fetchOf, makeContent, makeRig, readAll } from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';

test('what a fill fetches counts for the client that began it, whoever reads', async () => {
  const bytes: Record<string, number> = {};
  const fetched = (client: string, count: number): void => {
    bytes[client] = (bytes[client] ?? 0) + count;
  };
  const rig = await makeRig({ clients: { fetched, mayFetch: () => true } });
  const content = makeContent(200_000);
  const handles = ['a', 'b', undefined].map((client) =>
    rig.cache.fill(content.key, fetchOf(content.bytes), client === undefined ? {} : { client }),
  );
  for (const handle of handles) {
    expect(await readAll(handle.open())).toEqual(content.bytes);
    handle.release();
  }
  await eventually('it is kept', () => rig.index.blob(content.digest) !== null);
  expect(bytes).toEqual({ a: 200_000 });
  await endRig(rig);
});
