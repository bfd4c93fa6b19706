import { describe, expect, it } from 'vitest';
import { parseImageName, parseRepositoryName } from '../../../src/images/image-name.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

describe('names of images', () => {
  it.each([
    ['alpine', 'docker.io/library/alpine:latest'],
    ['alpine:3.20', 'docker.io/library/alpine:3.20'],
    ['org/app', 'docker.io/org/app:latest'],
    ['docker.io/alpine', 'docker.io/library/alpine:latest'],
    ['index.docker.io/org/app:1', 'docker.io/org/app:1'],
    ['docker://quay.io/org/app:1', 'quay.io/org/app:1'],
    ['localhost:5000/app', 'localhost:5000/app:latest'],
    ['QUAY.io/org/app:V1', 'quay.io/org/app:V1'],
    [`quay.io/org/app@${DIGEST}`, `quay.io/org/app@${DIGEST}`],
    [`quay.io/org/app:1@${DIGEST}`, `quay.io/org/app:1@${DIGEST}`],
  ])('%s is %s', (written, whole) => {
    const image = parseImageName(written);
    expect(image.text).toBe(whole);
    expect(image.reference.kind).toBe(written.includes('@') ? 'digest' : 'tag');
  });

  it.each(['', 'UPPER/case', 'a:b:c', 'app@sha256:12', `app@${DIGEST}@${DIGEST}`, 'app:', 'a//b', '-x', 'app:.x'])(
    'refuses %j, in words',
    (written) => {
      expect(() => parseImageName(written)).toThrow(expect.objectContaining({ code: 'IMAGE_INVALID' }));
    },
  );

  it('reads repositories, which have no version', () => {
    expect(parseRepositoryName('quay.io/org/app')).toEqual({ registry: 'quay.io', repository: 'org/app' });
    for (const written of ['quay.io/org/app:1', `quay.io/org/app@${DIGEST}`, 'quay.io/org/app:latest'])
      expect(() => parseRepositoryName(written)).toThrow(expect.objectContaining({ code: 'IMAGE_INVALID' }));
  });
});
