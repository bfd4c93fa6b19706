import { describe, expect, it } from 'vitest';
import {
  type AcceptClass,
  acceptClass,
  accepts,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  DOCKER_SCHEMA1_SIGNED,
  essence,
  OCI_INDEX,
  OCI_MANIFEST,
  parseAccept,
  SHARED_VARIANTS,
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
  it('every shared variant that a class names is one of all', () => {
    for (const client of [everything, docker, old]) {
      expect(client.variants.slice(0, -1).filter((variant) => !SHARED_VARIANTS.includes(variant))).toEqual([]);
    }
  });
});
