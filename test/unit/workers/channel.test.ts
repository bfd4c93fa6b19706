import { describe, expect, test } from 'vitest';
import { CacheError } from '../../../src/cache/blob-cache.ts';
import { TruncatedError } from '../../../src/kit/byte-source.ts';
import { OperatorError } from '../../../src/kit/operator-error.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { ChannelClosedError } from '../../../src/workers/channel.ts';
import { channelPair } from '../../support/channel-pair.ts';

describe('a channel between two processes', () => {
  test('answers calls both ways, many at a time, each with its own', async () => {
    const { owner, worker } = channelPair();
    worker.handle('double', async ({ n }: { n: number }) => {
      // The first ones are answered last.
      for (let turn = n; turn < 10; turn++) await new Promise(setImmediate);
      return n * 2;
    });
    owner.handle('name', () => 'owner');
    const calls = Array.from({ length: 10 }, (_, n) => owner.call<number>('double', { n }));
    expect(await Promise.all(calls)).toEqual(Array.from({ length: 10 }, (_, n) => n * 2));
    expect(await worker.call('name', null)).toBe('owner');
  });

  test('carries bytes', async () => {
    const { owner, worker } = channelPair();
    worker.handle('echo', (bytes: Uint8Array) => bytes);
    expect(Buffer.from(await owner.call<Uint8Array>('echo', Buffer.from('bytes'))).toString()).toBe('bytes');
  });

  test.each([
    new RegistryError('tooManyRequests', { facts: { what: 'this client has had enough' }, retryAfter: 7 }),
    new OperatorError('USER_INVALID', 'no', { next: 'do better' }),
    new CacheError('too-large', 'a blob'),
    new TruncatedError('short'),
    new TypeError('a mistake'),
  ])('hands on a failure as what it was: $name', async (thrown) => {
    const { owner, worker } = channelPair();
    worker.handle('fail', () => {
      throw thrown;
    });
    const caught: unknown = await owner.call('fail', null).catch((error: unknown) => error);
    expect(caught).toBeInstanceOf(thrown instanceof TypeError ? Error : thrown.constructor);
    expect((caught as Error).message).toBe(thrown.message);
    if (thrown instanceof RegistryError) expect((caught as RegistryError).options).toEqual(thrown.options);
    if (thrown instanceof OperatorError)
      expect(caught).toMatchObject({ code: thrown.code, next: 'do better', usage: true });
    if (thrown instanceof CacheError) expect((caught as CacheError).reason).toBe('too-large');
  });

  test('passes an abort on, and still brings the answer', async () => {
    const { owner, worker } = channelPair();
    let aborted = false;
    worker.handle('wait', async (_: null, { signal }) => {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      aborted = true;
      return 'made all the same';
    });
    const controller = new AbortController();
    const answer = owner.call('wait', null, controller.signal);
    setImmediate(() => controller.abort());
    expect(await answer).toBe('made all the same');
    expect(aborted).toBe(true);
  });

  test('rejects what is under way, and what comes later, once the other side has gone; its handlers are told', async () => {
    const { owner, worker, cut } = channelPair();
    const told = Promise.withResolvers<void>();
    worker.handle('wait', (_: null, { signal }) => {
      signal.addEventListener('abort', () => told.resolve());
      setImmediate(cut);
      return new Promise(() => {});
    });
    await expect(owner.call('wait', null)).rejects.toBeInstanceOf(ChannelClosedError);
    await told.promise;
    await expect(owner.call('wait', null)).rejects.toBeInstanceOf(ChannelClosedError);
    let heard = false;
    owner.onClose(() => {
      heard = true;
    });
    expect(heard).toBe(true);
  });

  test('refuses a value that cannot cross, without waiting for an answer', async () => {
    const { owner, worker } = channelPair();
    await expect(owner.call('any', () => {})).rejects.toThrow(/clone/);
    worker.handle('any', () => () => {});
    await expect(owner.call('any', null)).rejects.toThrow(/clone/);
    await expect(owner.call('none', null)).rejects.toThrow('no such method: none');
  });
});
