import { describe, expect, it } from 'vitest';
import {
  isSamePage,
  nextTarget,
  pageAt,
  pageOfNext,
  parseLinks,
  queryOfNext,
  renderNext,
} from '../../../src/oci/link.ts';

describe('Link', () => {
  it('reads targets and parameters, quoted or not, with commas inside', () => {
    const links = parseLinks('</v2/a/tags/list?n=1,2>; rel="next"; title="a, \\"b\\"", <x>;REL=prev ; x');
    expect(links.map((link) => [link.target, Object.fromEntries(link.params)])).toEqual([
      ['/v2/a/tags/list?n=1,2', { rel: 'next', title: 'a, "b"' }],
      ['x', { rel: 'prev', x: '' }],
    ]);
  });
  it('keeps what came before a malformed entry', () => {
    expect(parseLinks('<a>; rel=next, b; rel=x').map((link) => link.target)).toEqual(['a']);
    expect(parseLinks('<a')).toEqual([]);
    expect(parseLinks('')).toEqual([]);
    expect(parseLinks('<a>; rel="open').map((link) => link.params.get('rel'))).toEqual(['open']);
  });
  it('ends on every text, long ones included', () => {
    for (const text of [';', '<>', '<>;;;;', '<a>;=;=', `${'<a>;'.repeat(2000)}`, ', ,', '<a>;rel="\\']) {
      expect(Array.isArray(parseLinks(text))).toBe(true);
    }
  });
});

describe('the next page', () => {
  const url = new URL('https://r.test/v2/org/app/tags/list?n=2');
  const page = 'list?n=2';
  const at = (header: string) => pageAt(nextTarget(header) ?? 'none', { url, page, kind: 'tags' });

  it.each([
    ['</v2/org/app/tags/list?n=2&last=b>; rel="next"', 'list?n=2&last=b'],
    ['<https://other.example/docker/v2/org/app/tags/list?last=b%2Bc>; rel=next', 'list?last=b%2Bc'],
    ['<?last=b#x>; rel="last next"', 'list?last=b'],
    ['<list?last=b>; rel=next', 'list?last=b'],
    ['</v2/org/app/tags/list>; rel="next"', 'list'],
    ['</v2/org/app/tags/list/?last=b>; rel="next"', 'list/?last=b'],
    ['</v2/org/app/tags/list/page/2>; rel="next"', 'list/page/2'],
    ['</v2/org/app/tags/TOKEN=?n=2>; rel="next"', 'TOKEN=?n=2'],
    ['</v2/org/app/tags/list?t=a+b%20c&&x&y=>; rel="next"', 'list?t=a+b%20c&&x&y='],
    ['</elsewhere?cursor=2>; rel="next"', 'list?cursor=2'],
  ])('%s is of the same list', (header, expected) => expect(at(header)).toBe(expected));

  it.each([
    '</pages/2>; rel="next"',
    '<https://>; rel="next"',
    '</v2/org/app/tags/x/manifests/1>; rel="next"',
    '</v2/org/app/tags/..%2f..%2fother>; rel="next"',
    '</v2/org/app/tags/%252e%252e/other>; rel="next"',
  ])('%s is outside it', (header) => expect(at(header)).toBeUndefined());

  it('is null without such a link', () => {
    expect(nextTarget(undefined)).toBeNull();
    expect(nextTarget('</x>; rel="prev"')).toBeNull();
  });

  it('is the same in whatever order its query is', () => {
    expect(isSamePage('list?n=2&last=a%2Cb', 'list?last=a,b&n=2')).toBe(true);
    expect(isSamePage('list?n=2', 'list?n=3')).toBe(false);
    expect(isSamePage('list?n=2', 'list/2?n=2')).toBe(false);
  });

  it.each([
    ['list?last=v09&n=0', 'last=v09&n=0&_next=1'],
    ['list', '_next=1'],
    ['list?t=a+b%20c&x&y=', 't=a+b%20c&x&y=&_next=1'],
    ['list/p=1?n=2', 'n=2&_next=list%2Fp%3D1'],
  ])('%s comes back from the query %s', (next, query) => {
    expect(queryOfNext(next, 'list')).toBe(query);
    expect(pageOfNext(query, 'list')).toBe(next);
    expect(pageOfNext(`${query}&ns=r.test`, 'list')).toBe(next);
  });

  it("has none of the names that are this gateway's own", () => {
    expect(queryOfNext('list?a=1&ns=x&_next=7&%5Fnext=7&_artifactType=y', 'list')).toBe('a=1&_next=1');
  });

  const elsewhere = ['', '..', '../x/tags/list', '/list', 'x//y', 'x/tags/list', '%252e%252e', 'a\\b', 'a?b', 'a%2fb'];
  const inDisguise = ['x/%6danifests/1', 'x/t%61gs/list', 'x/manifests;a/1', '..;/..;/y', '..%3ba/y', ';/y'];
  it.each([...elsewhere, ...inDisguise])('is none at the path %s', (path) =>
    expect(pageOfNext(new URLSearchParams({ _next: path }).toString(), 'list')).toBeNull(),
  );

  it('is written so that it reads back', () => {
    const query = new URLSearchParams({ n: '2', last: 'a>b"', ns: 'quay.io' }).toString();
    expect(nextTarget(renderNext('/v2/a/tags/list', query))).toBe(`/v2/a/tags/list?${query}`);
  });
});
