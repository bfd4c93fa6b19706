import { expect, test } from 'vitest';
import { repositoryAt, urlAt } from '../../../src/upstream/endpoint-url.ts';

const PATH = '/v2/library/app/tags/list?n=5';

test.each([
  ['https://r.test', 'https://r.test/v2/library/app/tags/list?n=5', 'library/app'],
  ['https://r.test/', 'https://r.test/v2/library/app/tags/list?n=5', 'library/app'],
  ['https://r.test/api/docker/hub', 'https://r.test/api/docker/hub/v2/library/app/tags/list?n=5', 'library/app'],
  ['https://r.test/v2x', 'https://r.test/v2x/v2/library/app/tags/list?n=5', 'library/app'],
  ['https://r.test/mirror/v2/x', 'https://r.test/mirror/v2/x/v2/library/app/tags/list?n=5', 'library/app'],
  ['https://r.test/v2/proj', 'https://r.test/v2/proj/library/app/tags/list?n=5', 'proj/library/app'],
  [
    'https://r.test:8443/v2/g/proxy/',
    'https://r.test:8443/v2/g/proxy/library/app/tags/list?n=5',
    'g/proxy/library/app',
  ],
])('an endpoint with a path: %s', (endpoint, url, repository) => {
  expect(urlAt(new URL(endpoint), PATH).href).toBe(url);
  expect(repositoryAt(new URL(endpoint), 'library/app')).toBe(repository);
});

test('whether it answers is asked at the API itself', () => {
  expect(urlAt(new URL('https://r.test/v2/proj'), '/v2/').href).toBe('https://r.test/v2/');
  expect(urlAt(new URL('https://r.test/art'), '/v2/').href).toBe('https://r.test/art/v2/');
});
