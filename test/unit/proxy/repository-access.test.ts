import { describe, expect, it } from 'vitest';
import type { RegistryEntry } from '../../../src/aliases/table.ts';
import { Facts } from '../../../src/cache/facts.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { Denials } from '../../../src/proxy/denials.ts';
import { RepositoryAccess } from '../../../src/proxy/repository-access.ts';
import { digestOf } from '../../conformance/cache-index.ts';
import { MemoryCacheIndex } from '../../support/memory-cache-index.ts';

const CREDENTIALS = { username: 'operator', password: 'secret' };
const DENIED = new RegistryError('upstreamDenied', { denied: true });
const X = digestOf('x');

/** Three registries of the table: open.example, closed.example (with credentials), hostile.example. */
function make() {
  const registries = new Map<string, RegistryEntry>();
  const put = (host: string, more: Partial<RegistryEntry> = {}): RegistryEntry => {
    const entry = {
      host,
      endpoints: [],
      proxy: null,
      credentials: null,
      realms: [],
      named: [],
      public: false,
      ...more,
    };
    registries.set(host, entry as RegistryEntry);
    return entry as RegistryEntry;
  };
  put('open.example');
  put('closed.example', { credentials: CREDENTIALS });
  put('hostile.example');
  const access = new RepositoryAccess(() => ({ registries }) as never, new Facts(new MemoryCacheIndex(), () => {}));
  const at = (host: string, repository = 'app') => {
    const key = { registry: host, repository };
    const entry = () => registries.get(host)!;
    return {
      key,
      says: (...digests: (typeof X)[]) => access.said(entry(), key, digests, access.denials.now),
      gives: (digest = X, type?: string) => access.gave(entry(), key, digest, access.denials.now, type),
      may: (digest = X) => access.mayServe(entry(), key, digest),
      knows: (digest = X) => access.knows(entry(), key, digest),
      typeOf: (digest = X) => access.mediaType(key, digest),
    };
  };
  return { access, put, at, registries };
}

describe('kept content', () => {
  it('that was given without a credential is open to whoever says that it holds it, and to nobody else', () => {
    const { at } = make();
    const [open, hostile] = [at('open.example'), at('hostile.example')];
    open.gives();
    expect([open.may(), hostile.may(), at('open.example', 'other').may()]).toEqual([true, false, false]);
    hostile.says(X);
    expect(hostile.may()).toBe(true);
  });

  it('that only credentials opened is closed to their registry, whatever others say', () => {
    const { at } = make();
    const [closed, hostile] = [at('closed.example'), at('hostile.example')];
    closed.gives();
    hostile.says(X);
    expect([closed.may(), hostile.may(), hostile.knows()]).toEqual([true, false, true]);
    at('closed.example', 'other').says(X);
    expect(at('closed.example', 'other').may()).toBe(true);
    hostile.gives();
    expect(hostile.may()).toBe(true);
  });

  it('that nobody gave is not served, whoever says that it has it', () => {
    const { at } = make();
    at('open.example').says(X);
    at('hostile.example').says(X);
    expect([at('open.example').may(), at('hostile.example').may()]).toEqual([false, false]);
  });

  it('of a registry that is public now is open, and closed again when it is not', () => {
    const { at, put } = make();
    at('closed.example').gives();
    const open = at('open.example');
    open.says(X);
    put('closed.example', { credentials: CREDENTIALS, public: true });
    expect(open.may()).toBe(true);
    put('closed.example', { credentials: CREDENTIALS });
    expect(open.may()).toBe(false);
  });

  it('that credentials opened counts for nobody once the row has none, or is gone', () => {
    const { at, put, registries } = make();
    const [closed, open] = [at('closed.example'), at('open.example')];
    closed.gives();
    open.says(X);
    put('closed.example', { public: true });
    expect([closed.may(), closed.knows(), open.may()]).toEqual([false, false, false]);
    registries.delete('closed.example');
    expect(open.may()).toBe(false);
  });

  it('keeps the type of each registry', () => {
    const { at } = make();
    at('open.example').gives(X, 'application/vnd.oci.image.index.v1+json');
    at('hostile.example').gives(X, 'text/html');
    expect(at('open.example').typeOf()).toBe('application/vnd.oci.image.index.v1+json');
    expect(at('closed.example').typeOf()).toBeNull();
  });
});

describe('a denial', () => {
  it('voids the repository and what it opened for others, and is counted for it alone', () => {
    const { access, at } = make();
    const [open, hostile] = [at('open.example'), at('hostile.example')];
    open.gives();
    hostile.says(X);
    const before = access.denials.now;
    access.failed(open.key, DENIED);
    expect([open.may(), open.knows(), hostile.may()]).toEqual([false, false, false]);
    expect(access.denials.since(before, 'open.example/app')).toBe(true);
    expect(access.denials.since(before, 'hostile.example/app')).toBe(false);
    expect(access.generation).toBe(0);
    open.gives();
    expect([open.may(), hostile.may()]).toEqual([true, true]);
  });

  it('by digest voids that digest alone', () => {
    const { access, at } = make();
    const open = at('open.example');
    const [y] = [digestOf('y')];
    open.gives();
    open.gives(y);
    access.failed({ ...open.key, digest: X }, DENIED);
    expect([open.may(), open.may(y)]).toEqual([false, true]);
  });

  it('that not every endpoint agrees to, or of what is not known, is none; nor is any other failure', () => {
    const { access, at } = make();
    const open = at('open.example');
    open.gives();
    access.failed(open.key, new RegistryError('upstreamDenied'));
    access.failed(open.key, new RegistryError('manifestUnknown'));
    access.failed({ ...open.key, digest: digestOf('y') }, DENIED);
    access.failed(at('hostile.example').key, DENIED);
    expect([open.may(), access.denials.now]).toEqual([true, 0]);
  });
});

describe('denials', () => {
  it('are remembered by repository, and beyond their number without the repository', () => {
    const denials = new Denials(2);
    const start = denials.now;
    for (const repository of ['a', 'b']) denials.add(repository);
    expect(['a', 'b', 'c'].map((repository) => denials.since(start, repository))).toEqual([true, true, false]);
    const later = denials.now;
    denials.add('c');
    expect(['a', 'z'].map((repository) => denials.since(start, repository))).toEqual([true, true]);
    expect(['a', 'b', 'c', 'z'].map((repository) => denials.since(later, repository))).toEqual([
      false,
      false,
      true,
      false,
    ]);
  });
});
