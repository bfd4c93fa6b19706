import { describe, expect, it } from 'vitest';
import { parseChallenges } from '../../../src/upstream/authorization.ts';

const parse = (header: string) =>
  parseChallenges(header).map(({ scheme, params }) => ({ scheme, ...Object.fromEntries(params) }));

describe('parseChallenges', () => {
  it('reads the challenge of Docker Hub', () => {
    const header =
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"';
    expect(parse(header)).toEqual([
      {
        scheme: 'bearer',
        realm: 'https://auth.docker.io/token',
        service: 'registry.docker.io',
        scope: 'repository:library/alpine:pull',
      },
    ]);
  });

  it('keeps commas, equal signs and escaped quotes within quotes', () => {
    expect(parse('Bearer realm="https://a/t?x=1,2",scope="repository:a:pull,push",error="a \\"b\\" c"')).toEqual([
      { scheme: 'bearer', realm: 'https://a/t?x=1,2', scope: 'repository:a:pull,push', error: 'a "b" c' },
    ]);
  });

  it('tells several challenges in one header apart', () => {
    expect(parse('Basic realm="x", Bearer realm="https://a/t", service=s, Negotiate, Digest nonce=n')).toEqual([
      { scheme: 'basic', realm: 'x' },
      { scheme: 'bearer', realm: 'https://a/t', service: 's' },
      { scheme: 'negotiate' },
      { scheme: 'digest', nonce: 'n' },
    ]);
  });

  it('reads any case and odd spaces', () => {
    expect(parse('bEARER   REALM = "https://a/t" ,Service="s"')).toEqual([
      { scheme: 'bearer', realm: 'https://a/t', service: 's' },
    ]);
  });

  it.each(['', ',,,', '"', '="x"', 'Bearer realm="unclosed', 'Negotiate abc==', '\\', 'Bearer =,=,'])(
    'survives %j',
    (header) => {
      expect(() => parseChallenges(header)).not.toThrow();
    },
  );
});
