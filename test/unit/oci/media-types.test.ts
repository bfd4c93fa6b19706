import { describe, expect, it } from 'vitest';
import {
  accepts,
  answers,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  DOCKER_SCHEMA1_SIGNED,
  essence,
  OCI_INDEX,
  OCI_MANIFEST,
  parseAccept,
} from '../../../src/oci/media-types.ts';

const everything = parseAccept(undefined);
const old = parseAccept(DOCKER_MANIFEST);
const docker = parseAccept([DOCKER_SCHEMA1_SIGNED, OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(','));

describe('Accept', () => {
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
  it('an index goes to all who can take it, whoever asked first', () => {
    expect(answers(docker, OCI_INDEX, everything)).toBe(true);
    expect(answers(everything, OCI_INDEX, docker)).toBe(true);
    expect(answers(everything, OCI_INDEX, old)).toBe(false);
  });
  it('a manifest made for an old client stays with those that cannot take an index', () => {
    expect(answers(old, DOCKER_MANIFEST, old)).toBe(true);
    expect(answers(old, DOCKER_MANIFEST, docker)).toBe(false);
    expect(answers(old, DOCKER_MANIFEST, everything)).toBe(false);
    expect(answers(docker, DOCKER_MANIFEST, old)).toBe(true);
    expect(answers(docker, DOCKER_MANIFEST, everything)).toBe(true);
  });
  it('an unknown type goes to those who name it or take all', () => {
    const helm = parseAccept('application/x.helm');
    expect(answers(helm, 'application/x.helm', helm)).toBe(true);
    expect(answers(everything, 'application/x.helm', helm)).toBe(true);
    expect(answers(helm, 'application/x.helm', everything)).toBe(false);
    expect(answers(everything, 'application/x.helm', docker)).toBe(false);
  });
});
