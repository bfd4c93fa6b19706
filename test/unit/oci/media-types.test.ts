import { describe, expect, it } from 'vitest';
import {
  type AcceptClass,
  acceptClass,
  accepts,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  DOCKER_SCHEMA1_SIGNED,
  essence,
  isSharedByClass,
  mayHave,
  OCI_INDEX,
  OCI_MANIFEST,
  parseAccept,
  variantOf,
} from '../../../src/oci/media-types.ts';

const everything = parseAccept(undefined);
const old = parseAccept(DOCKER_MANIFEST);
const docker = parseAccept([DOCKER_SCHEMA1_SIGNED, OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(','));

describe('Accept', () => {
  it('that was parsed lately is not parsed again', () => {
    expect(acceptClass('a/b, c/d')).toEqual(parseAccept('a/b, c/d'));
    expect(acceptClass('a/b, c/d')).toBe(acceptClass(['a/b', 'c/d'].join(', ')));
    expect(acceptClass(undefined)).toBe(parseAccept(undefined));
    expect(acceptClass(`a/b,${' '.repeat(5000)}`)).toEqual(parseAccept('a/b'));
  });
  it('takes media types without parameters and in any case', () => {
    expect(essence('Application/Vnd.OCI.image.index.v1+json; charset=utf-8')).toBe(OCI_INDEX);
    expect(accepts(parseAccept(`${OCI_INDEX.toUpperCase()};q=0.5`), OCI_INDEX)).toBe(true);
  });
  it('no header, an empty one, a wildcard and nonsense accept everything, and ask for every type by name', () => {
    for (const header of [undefined, '', '*/*', 'application/*;q=0.1', 'text/html, */*', ';;;']) {
      expect(parseAccept(header)).toEqual(everything);
    }
    for (const type of [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, '*/*']) {
      expect(everything.header.split(', ')).toContain(type);
    }
  });
  it('is one class for every order, weight and spacing', () => {
    expect(parseAccept(`${DOCKER_MANIFEST} ,${OCI_INDEX};q=0.2,x/y`)).toEqual(
      parseAccept(`x/y, ${OCI_INDEX}, ${DOCKER_MANIFEST}`),
    );
  });
  it('weight 0 excludes', () => {
    const client = parseAccept(`${OCI_INDEX};q=0, ${OCI_MANIFEST};q=0.001`);
    expect(accepts(client, OCI_INDEX)).toBe(false);
    expect(accepts(client, OCI_MANIFEST)).toBe(true);
  });
});

describe('who may share an answer', () => {
  const shares = (asked: AcceptClass, mediaType: string, client: AcceptClass) =>
    client.variants.includes(variantOf(asked, mediaType));

  it('an index goes to all who can take it, whoever asked first', () => {
    expect(shares(docker, OCI_INDEX, everything)).toBe(true);
    expect(shares(everything, OCI_INDEX, docker)).toBe(true);
    expect(shares(everything, OCI_INDEX, old)).toBe(false);
  });
  it('a manifest made for an old client stays with those that cannot take an index', () => {
    expect(shares(old, DOCKER_MANIFEST, old)).toBe(true);
    expect(shares(old, DOCKER_MANIFEST, docker)).toBe(false);
    expect(shares(old, DOCKER_MANIFEST, everything)).toBe(false);
    expect(shares(docker, DOCKER_MANIFEST, old)).toBe(true);
    expect(shares(docker, DOCKER_MANIFEST, everything)).toBe(true);
  });
  it('anything else stays within its class', () => {
    const helm = parseAccept('application/x.helm');
    expect(shares(helm, 'application/x.helm', helm)).toBe(true);
    expect(shares(helm, 'application/x.helm', everything)).toBe(false);
    expect(shares(docker, DOCKER_SCHEMA1_SIGNED, everything)).toBe(false);
  });
  it('what was sent whatever was asked for is for the whole class, what was asked for by its name for those who name it', () => {
    const [foo, bar] = [parseAccept(`${OCI_MANIFEST}, x/foo`), parseAccept(`${OCI_MANIFEST}, x/bar`)];
    const given = (asked: AcceptClass, mediaType: string, client: AcceptClass) => {
      const variant = variantOf(asked, mediaType);
      return client.variants.includes(variant) && mayHave(client, variant, mediaType);
    };
    expect(given(foo, 'x/foo', foo)).toBe(true);
    expect(given(foo, 'x/foo', bar)).toBe(false);
    expect(given(foo, 'x/foo', parseAccept(OCI_MANIFEST))).toBe(false);
    expect(given(foo, DOCKER_LIST, bar)).toBe(true);
    expect([isSharedByClass(foo, 'x/foo'), isSharedByClass(foo, OCI_MANIFEST)]).toEqual([false, true]);
  });
  it('there are few classes and variants, whatever clients send', () => {
    const types = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, DOCKER_SCHEMA1_SIGNED];
    const classes = new Set<string>();
    const variants = new Set<string>();
    for (let seed = 0; seed < 5_000; seed++) {
      const client = parseAccept(
        [...types.filter((_, bit) => (seed >> bit) & 1), `x/y${seed}`, `y/x${seed}`].join(','),
      );
      classes.add(client.key);
      for (const type of [...types, `x/y${seed}`, 'x/unasked']) variants.add(variantOf(client, type));
    }
    expect(classes.size).toBe(32);
    expect(variants.size).toBeLessThan(100);
  });
});
