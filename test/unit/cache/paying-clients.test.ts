import { afterEach, expect, test } from 'vitest';
import type { FillBudget } from '../../../src/cache/allowance.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import {
  DrivenFetch,
  endRig,
  fetchOf,
  makeContent,
  makeRig,
  type Rig,
  readAll,
  readUntilEnd,
} from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';

const SIZE = 200_000;
let rig: Rig;
afterEach(() => endRig(rig));

/** One client's quotas, as a fill has them. */
class Ledger implements FillBudget {
  promised: [bytes: number, reply: number][] = [];
  counted = 0;
  closed = 0;
  refuses = false;
  isOver = false;

  promise(bytes: number, reply: number): void {
    if (this.refuses) throw new RegistryError('tooManyRequests', { facts: { what: 'nothing is left' } });
    this.promised.push([bytes, reply]);
  }

  fetched(bytes: number): boolean {
    this.counted += bytes;
    return !this.isOver;
  }

  close(): void {
    this.closed++;
  }
}

async function start() {
  const ledgers: Record<string, Ledger> = {};
  const ledger = (client: string): Ledger => {
    ledgers[client] ??= new Ledger();
    return ledgers[client];
  };
  rig = await makeRig({ clients: { fill: ledger, mayFetch: () => true } });
  return { ledger, content: makeContent(SIZE) };
}

test('what a fill fetches counts for the client that began it, whoever reads; it is set aside when the fill begins', async () => {
  const { ledger, content } = await start();
  const handles = ['a', 'b', undefined].map((client) =>
    rig.cache.fill(content.key, fetchOf(content.bytes), client === undefined ? {} : { client }),
  );
  for (const handle of handles) {
    expect(await readAll(handle.open())).toEqual(content.bytes);
    handle.release();
  }
  await eventually('it is kept', () => rig.index.blob(content.digest) !== null);
  await eventually('nothing is set aside any more', () => ledger('a').closed === 1);
  expect([ledger('a').promised, ledger('a').counted]).toEqual([[[SIZE, SIZE]], SIZE]);
  expect([ledger('b').promised, ledger('b').counted]).toEqual([[], 0]);
});

test('a fill for which its client has too little left fetches nothing, and says so in place of the size', async () => {
  const { ledger, content } = await start();
  ledger('a').refuses = true;
  const driven = new DrivenFetch();
  const handle = rig.cache.fill(content.key, driven.fetch, { client: 'a' });
  const size = handle.size().catch((error: RegistryError) => error.kind);
  const sink = await driven.sink();
  expect(() => sink.begin(SIZE)).toThrow('nothing is left');
  expect(await size).toBe('tooManyRequests');
  driven.fail(new Error('ended'));
  handle.release();
  await eventually('nothing is set aside', () => ledger('a').closed === 1);
  expect(ledger('a').counted).toBe(0);
});

test('parts count as they come; where half was asked for, the rest is fetched only if it fits', async () => {
  for (const refuses of [true, false]) {
    const { ledger, content } = await start();
    const part = { from: 0, to: 150_000, openEnded: false };
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch, { client: 'a', part });
    ledger('a').refuses = refuses;
    const reading = readAll(handle.open({ from: 0, to: 150_000 }));
    const sink = await driven.sink();
    sink.begin(SIZE);
    await sink.write(0, content.bytes.subarray(0, 150_000));
    expect(await reading).toEqual(content.bytes.subarray(0, 150_000));
    expect(ledger('a').promised).toEqual(refuses ? [] : [[SIZE, 0]]);
    expect(ledger('a').counted).toBe(150_000);
    driven.fail(new Error('ended'));
    handle.release();
    if (refuses) await endRig(rig);
  }
});

test('a fill ends where others have used up what it had set aside', async () => {
  const { ledger, content } = await start();
  ledger('a').isOver = true;
  const handle = rig.cache.fill(content.key, fetchOf(content.bytes), { client: 'a' });
  const { bytes, error } = await readUntilEnd(handle.open());
  handle.release();
  expect([bytes.length < SIZE, error !== null]).toEqual([true, true]);
});
