import { describe, expect, it } from 'vitest';
import { nextQuery, parseLinks, renderNext } from '../../../src/oci/link.ts';

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
  it.each([
    ['</v2/a/tags/list?n=2&last=b>; rel="next"', 'n=2&last=b'],
    ['<https://other.example/v2/a/tags/list?last=b%2Bc>; rel=next', 'last=b%2Bc'],
    ['<?last=b#x>; rel="last next"', 'last=b'],
    ['</v2/a/tags/list>; rel="next"', ''],
  ])('%s', (header, query) => expect(nextQuery(header)?.toString()).toBe(query));
  it('is null without such a link', () => {
    expect(nextQuery(undefined)).toBeNull();
    expect(nextQuery('</x>; rel="prev"')).toBeNull();
  });
  it('is written so that it reads back', () => {
    const query = new URLSearchParams({ n: '2', last: 'a>b"', ns: 'quay.io' });
    const header = renderNext('/v2/a/tags/list', query);
    expect(nextQuery(header)?.toString()).toBe(query.toString());
  });
});
