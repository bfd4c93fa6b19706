import { describe, expect, test } from 'vitest';
import { requireReference } from '../../../src/oci/names.ts';
import type { Pull, Reply } from '../../../src/proxy/reply.ts';
import { questionOf, ReadyReplies } from '../../../src/workers/ready-replies.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

function pull(more: Partial<Pull> & { reference?: string; repository?: string; registry?: string } = {}): Pull {
  const { reference = 'v1', repository = 'org/app', registry = 'quay.io', ...rest } = more;
  return {
    target: { registry, repository, what: { kind: 'manifest', reference: requireReference(reference) } },
    method: 'GET',
    accept: 'application/json',
    authenticated: false,
    base: '/v2/',
    signal: new AbortController().signal,
    ...rest,
  };
}

function reply(more: Partial<Reply> = {}): Reply {
  return {
    status: 200,
    headers: { etag: 'x' },
    body: Buffer.from('{}'),
    from: 'upstream',
    freshUntil: 60_000,
    ...more,
  };
}

describe('replies that are ready', () => {
  test('are given again for a second, as from the cache', () => {
    let now = 1_000;
    const ready = new ReadyReplies(() => now);
    const key = questionOf(pull());
    ready.put(key, reply(), ready.age);
    expect(ready.find(key)).toMatchObject({ status: 200, from: 'cache', headers: { etag: 'x' } });
    now = 1_999;
    expect(ready.find(key)).not.toBeNull();
    now = 2_000;
    expect(ready.find(key)).toBeNull();
  });

  test('and never for longer than the core said', () => {
    let now = 1_000;
    const ready = new ReadyReplies(() => now);
    ready.put('key', reply({ freshUntil: 1_100 }), ready.age);
    now = 1_100;
    expect(ready.find('key')).toBeNull();
    ready.put('key', reply({ freshUntil: 1_000 }), ready.age);
    expect(ready.find('key')).toBeNull();
  });

  test('are those alone that may be given again', () => {
    const ready = new ReadyReplies(() => 0);
    const { freshUntil: _, ...once } = reply();
    ready.put('once', once, ready.age);
    ready.put(null, reply(), ready.age);
    const stream = { length: 1, pull: async () => 0, close: async () => {} };
    ready.put('stream', reply({ body: stream }), ready.age);
    expect([ready.find('once'), ready.find(null), ready.find('stream')]).toEqual([null, null, null]);
  });

  test('are forgotten with every change; what was asked for before it is not put in after it', () => {
    const ready = new ReadyReplies(() => 0);
    ready.put('key', reply(), ready.age);
    const { age } = ready;
    ready.clear();
    expect(ready.find('key')).toBeNull();
    ready.put('key', reply(), age);
    expect(ready.find('key')).toBeNull();
  });

  test('are bounded', () => {
    const ready = new ReadyReplies(() => 0);
    for (let index = 0; index < 10; index++)
      ready.put(`${index}`, reply({ body: Buffer.alloc(1024 * 1024) }), ready.age);
    const found = Array.from({ length: 10 }, (_, index) => ready.find(`${index}`) !== null);
    expect(found.filter(Boolean)).toHaveLength(3);
    expect(found[9]).toBe(true);
  });

  test('answer only the very same question', () => {
    const questions = [
      pull(),
      pull({ method: 'HEAD' }),
      pull({ authenticated: true }),
      pull({ accept: undefined }),
      pull({ accept: 'application/xml' }),
      pull({ ifNoneMatch: '"x"' }),
      pull({ reference: 'v2' }),
      pull({ reference: DIGEST }),
      pull({ repository: 'org/other' }),
      pull({ registry: 'ghcr.io' }),
    ].map(questionOf);
    expect(new Set(questions).size).toBe(questions.length);
    expect(questions).not.toContain(null);
    expect(questionOf(pull())).toBe(questionOf(pull({ base: '/v2/quay.io/', ns: 'quay.io' })));
  });

  test('are manifests, asked for in few words', () => {
    const { target } = pull();
    expect(questionOf({ ...pull(), target: { ...target, what: { kind: 'tags' } } as Pull['target'] })).toBeNull();
    expect(questionOf(pull({ accept: 'a'.repeat(3000) }))).toBeNull();
  });
});
