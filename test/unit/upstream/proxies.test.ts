import { describe, expect, it } from 'vitest';
import { ProxyChoice, parseProxy, proxyFromEnvironment } from '../../../src/upstream/net/egress.ts';

describe('parseProxy', () => {
  it('reads kind, port and credentials', () => {
    expect(parseProxy('socks5h://us%40er:p%3Aw@proxy:9050')).toMatchObject({
      kind: 'socks5',
      resolves: true,
      host: 'proxy',
      port: 9050,
      username: 'us@er',
      password: 'p:w',
    });
    expect(parseProxy('socks5://[::1]')).toMatchObject({ kind: 'socks5', resolves: false, host: '::1', port: 1080 });
    expect(parseProxy('http://p:3128')).toMatchObject({ kind: 'http', resolves: true, port: 3128, username: null });
    expect(parseProxy('https://p')).toMatchObject({ kind: 'https', port: 443 });
  });

  it('refuses what is no proxy', () => {
    expect(parseProxy('ftp://p')).toBeNull();
    expect(parseProxy('proxy:3128')).toBeNull();
  });
});

describe('proxyFromEnvironment', () => {
  const environment = { HTTPS_PROXY: 'http://secure:1', http_proxy: 'plain:2', ALL_PROXY: 'socks5://all:3' };
  const choose = (url: string, more: Record<string, string> = {}) =>
    proxyFromEnvironment(new URL(url), { ...environment, ...more });

  it('goes by the protocol, then ALL_PROXY', () => {
    expect(choose('https://quay.io/v2/')).toBe('http://secure:1');
    expect(choose('http://quay.io/v2/')).toBe('http://plain:2');
    expect(proxyFromEnvironment(new URL('https://quay.io'), { all_proxy: 'socks5://all:3' })).toBe('socks5://all:3');
    expect(proxyFromEnvironment(new URL('https://quay.io'), {})).toBeNull();
  });

  it.each([
    ['quay.io', 'https://quay.io/', true],
    ['quay.io', 'https://cdn.quay.io/', true],
    ['quay.io', 'https://notquay.io/', false],
    ['.quay.io', 'https://cdn.quay.io/', true],
    ['*.quay.io', 'https://cdn.quay.io/', true],
    ['QUAY.IO', 'https://quay.io/', true],
    ['quay.io:443', 'https://quay.io/', true],
    ['quay.io:8443', 'https://quay.io/', false],
    ['quay.io:8443', 'https://quay.io:8443/', true],
    ['*', 'https://quay.io/', true],
    ['10.0.0.0/8', 'https://10.1.2.3/', true],
    ['10.0.0.0/8', 'https://11.1.2.3/', false],
    ['::ffff:10.0.0.0/104', 'https://10.1.2.3/', true],
    ['10.1.2.3', 'https://10.1.2.3/', true],
    ['fd00::/8', 'https://[fd00::1]/', true],
    ['fd00::1', 'https://[fd00::1]/', true],
    ['[fd00::1]:443', 'https://[fd00::1]/', true],
    ['a.b, quay.io', 'https://quay.io/', true],
    ['', 'https://quay.io/', false],
    ['', 'https://localhost/', true],
    ['', 'https://127.0.0.1/', true],
    ['', 'https://[::1]/', true],
    ['quay.io.', 'https://quay.io/', true],
    ['quay.io.:443', 'https://quay.io./', true],
  ])('NO_PROXY=%s spares %s: %s', (list, url, spared) => {
    expect(choose(url, { NO_PROXY: list }) === null).toBe(spared);
  });
});

describe('ProxyChoice', () => {
  const environment = { ALL_PROXY: 'http://environment:1', NO_PROXY: '*' };

  it("prefers the registry's proxy, then the configured one; NO_PROXY exempts from neither", () => {
    const url = new URL('https://quay.io');
    expect(new ProxyChoice('http://configured:1', environment).for(url, 'socks5://own')?.host).toBe('own');
    expect(new ProxyChoice('http://configured:1', environment).for(url, null)?.host).toBe('configured');
    expect(new ProxyChoice(null, environment).for(url, null)).toBeNull();
  });

  it('never goes around a proxy that it cannot read', () => {
    expect(() => new ProxyChoice('gopher://x', {}).for(new URL('https://quay.io'), null)).toThrow(/proxy/);
  });
});
