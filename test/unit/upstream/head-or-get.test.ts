import { describe, expect, it } from 'vitest';
import { StatusError } from '../../../src/upstream/failures.ts';
import { HeadOrGet } from '../../../src/upstream/head-or-get.ts';

const endpoint = new URL('https://registry.test');
const { signal } = new AbortController();
const MINUTE_MS = 60_000;

/** A host that answers GET, and HEAD as it is told to. */
function host() {
  const state = { now: 0, heads: 0 };
  const headOrGet = new HeadOrGet(
    () => 100,
    () => state.now,
  );
  const ask = (head: () => Promise<string | null>) =>
    headOrGet.ask(endpoint, 'manifest', signal, {
      head: () => {
        state.heads++;
        return head();
      },
      get: () => Promise.resolve('got'),
    });
  return { state, ask };
}

const answers = () => Promise.resolve('said');
const refuses = () => Promise.reject(new StatusError(403, endpoint.host));
const fails = () => Promise.reject(new StatusError(503, endpoint.host));

function refusedByDownloadHost(): Promise<never> {
  const error = new StatusError(502, endpoint.host);
  error.downloadHostStatus = 403;
  return Promise.reject(error);
}

describe('a host is asked by HEAD again', () => {
  it.each<[string, () => Promise<string | null>]>([
    ['was refused', refuses],
    ['was refused by a download host', refusedByDownloadHost],
    ['has no such method', () => Promise.reject(new StatusError(501, endpoint.host))],
    ['said what cannot be true', () => Promise.resolve(null)],
  ])('after ten minutes where it %s', async (_, head) => {
    const { state, ask } = host();
    expect(await ask(head)).toBe('got');
    state.now += 9 * MINUTE_MS;
    expect(await ask(answers)).toBe('got');
    state.now += 2 * MINUTE_MS;
    expect(await ask(answers)).toBe('said');
    expect(state.heads).toBe(2);
  });

  it.each<[string, () => Promise<string>]>([
    ['failed', fails],
    ['broke off', () => Promise.reject(new Error('broken'))],
    ['was not answered', () => new Promise(() => {})],
  ])('within a minute where one %s, and after ten where the next one did too', async (_, head) => {
    const { state, ask } = host();
    expect(await ask(head)).toBe('got');
    expect(await ask(answers)).toBe('got');
    state.now += MINUTE_MS;
    expect(await ask(head)).toBe('got');
    state.now += 9 * MINUTE_MS;
    expect(await ask(answers)).toBe('got');
    state.now += 2 * MINUTE_MS;
    expect(await ask(answers)).toBe('said');
  });

  it('within a minute where several failed at the same moment, or one that came after an answer', async () => {
    const { state, ask } = host();
    expect(await Promise.all([ask(fails), ask(fails), ask(fails)])).toEqual(['got', 'got', 'got']);
    state.now += MINUTE_MS;
    expect(await ask(answers)).toBe('said');
    expect(await ask(fails)).toBe('got');
    state.now += MINUTE_MS;
    expect(await ask(answers)).toBe('said');
  });
});
