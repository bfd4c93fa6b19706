import { utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { BlobHandle } from '../../../src/cache/blob-cache.ts';
import type { ByteSource } from '../../../src/kit/byte-source.ts';
import { TruncatedError } from '../../../src/kit/byte-source.ts';
import { Denials } from '../../../src/proxy/denials.ts';
import { blobHeaders, type Pull } from '../../../src/proxy/reply.ts';
import { CoreHost } from '../../../src/workers/core-host.ts';
import { RemoteCore } from '../../../src/workers/remote-core.ts';
import {
  type Content,
  DrivenFetch,
  endRig,
  fetchOf,
  makeContent,
  makeRig,
  type Rig,
  readAll,
  readUntilEnd,
} from '../../support/cache-rig.ts';
import { channelPair } from '../../support/channel-pair.ts';
import { eventually } from '../../support/eventually.ts';

const SIZE = 100_000;
let rig: Rig;
let cut: () => void = () => {};
afterEach(async () => {
  cut();
  await endRig(rig);
});

/** Questions about growth that the owner has not answered. */
let unanswered = 0;

/** An owner that serves ranges (`from-to`) of one blob, and a worker's view of it. */
async function start(open: () => BlobHandle): Promise<(range?: string) => Promise<ByteSource>> {
  const pair = channelPair();
  cut = pair.cut;
  const core = {
    generation: 0,
    denials: new Denials(),
    serve: async ({ range, target: { what } }: Pull) => {
      const handle = open();
      const [from = 0, to] = range === undefined || range === '' ? [] : range.split('-').map(Number);
      const body = handle.open({ from, to });
      handle.release();
      if (what.kind !== 'blob') throw new Error('a blob');
      return { status: 200, headers: blobHeaders(what.digest, undefined), body, from: 'fill' as const };
    },
  };
  const { owner } = pair;
  const handle = owner.handle.bind(owner);
  unanswered = 0;
  owner.handle = (method, handler) =>
    handle(method, async (params: never, context) => {
      if (method === 'advance') unanswered++;
      try {
        return await handler(params, context);
      } finally {
        if (method === 'advance') unanswered--;
      }
    });
  new CoreHost(core, owner);
  const remote = new RemoteCore(pair.worker);
  return async (range) => {
    const reply = await remote.serve({
      target: { registry: 'docker.io', repository: 'library/app', what: { kind: 'blob', digest: open().digest } },
      method: 'GET',
      range,
      authenticated: false,
      client: '192.0.2.1',
      base: '/v2/',
      signal: new AbortController().signal,
    });
    return reply.body as ByteSource;
  };
}

describe('a growing blob read in a worker', () => {
  it('gives each reader its own extent as soon as that is there, and the end of the whole when the digest is right', async () => {
    rig = await makeRig();
    const content: Content = makeContent(SIZE);
    const driven = new DrivenFetch();
    const part = { from: 80_000, to: 90_000, openEnded: false };
    const handle = rig.cache.fill(content.key, driven.fetch, { part });
    const sink = await driven.sink();
    sink.begin(SIZE);
    const ask = await start(() => rig.cache.growing(content.key) ?? rig.cache.kept(content.digest)!);
    const far = readAll(await ask('80000-90000'));
    const last = readAll(await ask(`${SIZE - 10}-${SIZE}`));
    await sink.write(80_000, content.bytes.subarray(80_000, 90_000));
    expect((await far).equals(content.bytes.subarray(80_000, 90_000))).toBe(true);
    await sink.write(90_000, content.bytes.subarray(90_000));
    expect((await last).equals(content.bytes.subarray(SIZE - 10))).toBe(true);
    const whole = readAll(await ask());
    await sink.write(0, content.bytes.subarray(0, 80_000));
    driven.finish();
    expect((await whole).equals(content.bytes)).toBe(true);
    handle.release();
    await eventually('it is kept', () => rig.index.blob(content.digest) !== null);
  });

  it('tells the owner where its reader waits, which is what is fetched next', async () => {
    rig = await makeRig();
    const content = makeContent(SIZE);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch, { part: { from: 0, to: 10, openEnded: false } });
    const sink = await driven.sink();
    sink.begin(SIZE);
    const ask = await start(() => rig.cache.growing(content.key)!);
    const source = await ask('40000-50000');
    const reading = readAll(source);
    const missing = new (await import('../../../src/kit/interval-set.ts')).IntervalSet([{ from: 0, to: SIZE }]);
    await eventually('it is wished for', () => sink.wishes?.next(missing)?.urgent === true);
    expect(sink.wishes?.next(missing)).toEqual({ from: 40_000, to: 50_000, urgent: true });
    await sink.write(40_000, content.bytes.subarray(40_000, 50_000));
    expect((await reading).equals(content.bytes.subarray(40_000, 50_000))).toBe(true);
    driven.fail(new Error('enough'));
    handle.release();
  });

  it('is asked about no longer where the readers have left, and is for those who are still there', async () => {
    rig = await makeRig();
    const content = makeContent(SIZE);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch, { part: { from: 0, to: 10, openEnded: false } });
    const sink = await driven.sink();
    sink.begin(SIZE);
    const ask = await start(() => rig.cache.growing(content.key)!);
    const staying = readAll(await ask('40000-50000'));
    const leaving = await Promise.all(['40000-50000', '60000-70000', '60000-80000'].map((range) => ask(range)));
    const left = leaving.map((source) => readUntilEnd(source));
    await eventually('each place is asked about once', () => unanswered === 2);
    for (const source of leaving) await source.close();
    await eventually('one is asked about', () => unanswered === 1);
    for (const { error } of await Promise.all(left)) expect(error).toBeInstanceOf(TruncatedError);
    await sink.write(40_000, content.bytes.subarray(40_000, 50_000));
    expect((await staying).equals(content.bytes.subarray(40_000, 50_000))).toBe(true);
    driven.fail(new Error('enough'));
    handle.release();
  });
});

describe('a kept blob read in a worker', () => {
  it('that is not what it was ends short there, too, and is fetched anew', async () => {
    rig = await makeRig();
    const content = makeContent(SIZE);
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    await readAll(handle.open());
    handle.release();
    await eventually(
      'it is kept',
      () => rig.index.blob(content.digest) !== null && rig.cache.admin.stats().fills === 0,
    );
    const hex = content.digest.slice(7);
    const file = join(rig.dataDir, 'blobs', 'sha256', hex.slice(0, 2), hex);
    await writeFile(file, Buffer.alloc(SIZE));
    // File systems count time in steps of some ms: what is written within the step of the last write has its time.
    const later = new Date(Date.now() + 1_000);
    await utimes(file, later, later);
    const found = rig.cache.kept(content.digest)!;
    const ask = await start(() => found.hold());
    const { bytes, error } = await readUntilEnd(await ask());
    expect([error instanceof TruncatedError, bytes.length < SIZE]).toEqual([true, true]);
    await eventually('it is dropped', () => rig.index.blob(content.digest) === null);
    found.release();
  });
});
