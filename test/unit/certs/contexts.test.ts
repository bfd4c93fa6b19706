import { createSecureContext } from 'node:tls';
import { expect, it } from 'vitest';
import { always, MAX_READY, ServedContexts } from '../../../src/certs/contexts.ts';

it('keeps the contexts of the names that were asked for last, and makes those of others anew', () => {
  const hosts = new Set(Array.from({ length: MAX_READY + 1 }, (_, index) => `a${index}.example`));
  const context = createSecureContext();
  const made: string[] = [];
  const served = new ServedContexts(Date.now);
  served.swap(
    hosts,
    (host) => {
      made.push(host);
      return always(context);
    },
    () => always(context),
  );
  const { byHost } = served.snapshot();
  for (const host of hosts) expect(byHost.get(host)).toBe(context);
  expect(made.splice(0)).toEqual([...hosts]);
  byHost.get(`a${MAX_READY}.example`);
  expect(made).toEqual([]);
  expect(byHost.get('a0.example')).toBe(context);
  expect(made).toEqual(['a0.example']);
});
