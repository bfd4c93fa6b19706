import { describe, expect, test } from 'vitest';
import { Breaker, LeftAlone } from '../../../src/cache/breaker.ts';

const never = new AbortController().signal;

describe('a service that may be away', () => {
  test('is waited for no longer than was said, by a question that cannot be ended either', async () => {
    const breaker = new Breaker({ service: 'the index', pauseMs: 60_000 });
    const began = performance.now();
    const asked = breaker.ask(() => new Promise<never>(() => {}), never, 100);
    await expect(asked).rejects.toThrow('the index did not answer within 100 ms');
    expect(performance.now() - began).toBeLessThan(5_000);
    // It is left alone then, and costs the next one nothing.
    await expect(breaker.ask(async () => 'answer', never, 100)).rejects.toThrow(LeftAlone);
  }, 10_000);

  test('is not to blame where whoever asked goes away, or for what comes of the question later', async () => {
    const breaker = new Breaker({ service: 'the index' });
    const leaving = new AbortController();
    const question = Promise.withResolvers<never>();
    const asked = breaker.ask(() => question.promise, leaving.signal, 60_000);
    leaving.abort(new Error('the client has gone'));
    await expect(asked).rejects.toThrow('the client has gone');
    question.reject(new Error('connection lost'));
    expect(await breaker.ask(async () => 'answer', never, 60_000)).toBe('answer');
    expect(breaker.works).toBe(true);
  }, 10_000);
});
