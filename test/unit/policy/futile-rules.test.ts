import { expect, test } from 'vitest';
import { parseImageRules } from '../../../src/config/images.ts';
import { futileRules } from '../../../src/policy/futile-rules.ts';

const TABLE = ['docker.io', 'quay.io', 'localhost:5000', '*.pkg.dev'];

test.each<[rules: unknown[], futile: [rule: string, why: string][]]>([
  [['docker.io/*', '!*:latest', 'quay.io/a/b', 'localhost:5000/x'], []],
  [['index.docker.io/*', '*.pkg.dev/*', 'europe-docker.pkg.dev/*', '*/nginx', 'docker*/nginx', '*@*'], []],
  [
    ['ghcr.io/*', '!quai.io/*'],
    [
      ['ghcr.io/*', 'no registry of the table is called ghcr.io'],
      ['!quai.io/*', 'no registry of the table is called quai.io'],
    ],
  ],
  [['!quay.io/bad', 'quay.io/*'], [['!quay.io/bad', 'quay.io/* stands behind it']]],
  [['quay.io/*', '!quay.io/bad'], []],
  [['!*:latest', '*'], [['!*:latest', '* stands behind it']]],
  [['!docker.io/nginx:1.2', '*:1.*'], [['!docker.io/nginx:1.2', '*:1.* stands behind it']]],
  [['!docker.io/nginx:1.*', '*:1.2'], []],
  [['*:1.2', '*@*'], []],
  [['docker.io/*', '!*:1', '*@*', '!*@sha256:*'], []],
  // What opens digests is closed by what refuses, not by what allows as well.
  [['*@*', '*'], []],
  [['quay.io/*@*', '*@*'], [['quay.io/*@*', '*@* stands behind it']]],
  [['quay.io/*@*', '!quay.io/*'], [['quay.io/*@*', '!quay.io/* stands behind it']]],
  [['*@sha256:*', '!*@*'], [['*@sha256:*', '!*@* stands behind it']]],
  // One that is for some clients stands behind nothing that is for others.
  [['*', { image: '!*', users: ['ci'] }], []],
  [[{ image: '!*', users: ['ci'] }, '*'], [['!* (user ci)', '* stands behind it']]],
  [
    [
      { image: '!*', users: ['ci'] },
      { image: '*', users: ['ci'], networks: ['10.0.0.0/8'] },
    ],
    [],
  ],
  [[{ image: '*', users: ['gone'] }], [['* (user gone)', 'there is no user gone']]],
  [[{ image: '*', users: ['gone', 'ci'] }], []],
])('%j', (rules, futile) => {
  const found = futileRules(parseImageRules(rules), TABLE, new Set(['ci']));
  expect(found.map(({ rule }) => rule)).toEqual(futile.map(([rule]) => rule));
  for (const [index, [, why]] of futile.entries()) expect(found[index]?.why).toContain(why);
});
