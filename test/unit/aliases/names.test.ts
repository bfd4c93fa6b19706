import { describe, expect, test } from 'vitest';
import {
  defaultEndpoints,
  parseAliasName,
  parseEndpoint,
  parseEndpoints,
  parseRealm,
  parseRegistryHost,
  parseRegistryProxy,
} from '../../../src/aliases/names.ts';
import { parseCredentials } from '../../../src/aliases/registry-credentials.ts';
import { refusal } from '../../support/refusal.ts';

const DOMAIN = 'cr.example.com';

describe('alias names', () => {
  test.each([
    ['k8s-gcr', 'k8s-gcr', 'k8s-gcr.cr.example.com'],
    ['K8S-GCR', 'k8s-gcr', 'k8s-gcr.cr.example.com'],
    ['k8s-gcr.cr.example.com', 'k8s-gcr', 'k8s-gcr.cr.example.com'],
    ['Hub.Corp.Example', 'hub.corp.example', 'hub.corp.example'],
    ['hub.corp.example.', 'hub.corp.example', 'hub.corp.example'],
    ['bücher', 'xn--bcher-kva', 'xn--bcher-kva.cr.example.com'],
    ['BÜCHER.example', 'xn--bcher-kva.example', 'xn--bcher-kva.example'],
    ['xn--bcher-kva', 'xn--bcher-kva', 'xn--bcher-kva.cr.example.com'],
    ['2', '2', '2.cr.example.com'],
    ['a'.repeat(63), 'a'.repeat(63), `${'a'.repeat(63)}.cr.example.com`],
  ])('%s is %s at %s', (text, name, host) => {
    expect(parseAliasName(text, DOMAIN)).toEqual({ name, host });
  });

  test.each([
    ['', 'is empty'],
    ['a'.repeat(64), '64 characters'],
    [`${'a.'.repeat(126)}ab`, '254 characters'],
    ['a_b', 'underscore'],
    ['-a', 'starts with a hyphen'],
    ['a-', 'ends with a hyphen'],
    ['hub..example', 'empty part'],
    ['.', 'empty part'],
    ['192.0.2.1', 'IP address'],
    ['::1', 'IP address'],
    ['[::1]', 'IP address'],
    ['1.2.3', 'reads as an IP address'],
    ['a%41', 'percent sign'],
    ['0x7f.1', 'reads as an IP address'],
    ['hub.1', 'reads as an IP address'],
    [DOMAIN, 'domain of this gateway itself'],
    ['CR.example.com.', 'domain of this gateway itself'],
    ['localhost', 'leads to the gateway itself'],
    ['a.b.cr.example.com', 'more than one label under the domain'],
    ['hub.example:443', 'colon'],
    ['https://hub.example', 'URL'],
    ['hub/x', 'slash'],
    ['*.example.com', 'star'],
    ['a b', 'space'],
    ['a\u0000b', '\\u0000'],
    ['xn--\u00fc', 'cannot be written'],
    ['xn--a-', 'hyphen'],
    ['xn--zz--zz99', 'punycode'],
    ['\u00ad', 'cannot be written'],
  ])('%j is refused: %s', (text, reason) => {
    const error = refusal(() => parseAliasName(text, DOMAIN));
    expect(error).toMatchObject({ code: 'NAME_INVALID', usage: true });
    expect(error.message).toContain(reason);
    expect(error.next).toBeTruthy();
  });

  test('a label that would make the whole host too long is refused', () => {
    const long = `${'d'.repeat(60)}.`.repeat(4).slice(0, -1);
    expect(refusal(() => parseAliasName('a'.repeat(20), long)).message).toContain('253 are the most');
  });

  test('never takes longer than the text', () => {
    for (const text of [`${'a-'.repeat(50_000)}a`, '.'.repeat(100_000), 'ü'.repeat(100_000)]) {
      expect(refusal(() => parseAliasName(text, DOMAIN)).message.length).toBeLessThan(400);
    }
  });
});

describe('registries', () => {
  test.each([
    ['docker.io', 'docker.io'],
    ['K8S.gcr.IO', 'k8s.gcr.io'],
    ['localhost', 'localhost'],
    ['localhost:5000', 'localhost:5000'],
    ['registry:05000', 'registry:5000'],
    ['192.0.2.1:5000', '192.0.2.1:5000'],
    ['192.0.2.1', '192.0.2.1'],
    ['[2001:DB8::1]:5000', '[2001:db8::1]:5000'],
    ['bücher.example', 'xn--bcher-kva.example'],
  ])('%s is %s', (text, host) => {
    expect(parseRegistryHost(text)).toBe(host);
  });

  test.each([
    ['', 'is empty'],
    ['quay', 'neither a dot nor a port'],
    ['https://quay.io', 'URL'],
    ['quay.io/org', 'path'],
    ['quay.io:', 'port from 1 to 65535'],
    ['quay.io:0', 'port from 1 to 65535'],
    ['quay.io:65536', 'port from 1 to 65535'],
    ['quay.io:5000:1', 'port from 1 to 65535'],
    ['2001:db8::1', 'port from 1 to 65535'],
    ['[::g]:5000', 'IPv6'],
    ['reg_istry.example', 'underscore'],
    ['user@quay.io', '@'],
    ['300.1.1.1', 'reads as an IP address'],
  ])('%j is refused: %s', (text, reason) => {
    const error = refusal(() => parseRegistryHost(text));
    expect(error).toMatchObject({ code: 'REGISTRY_INVALID', usage: true });
    expect(error.message).toContain(reason);
  });
});

describe('endpoints', () => {
  test.each([
    ['https://registry-1.docker.io', 'https://registry-1.docker.io'],
    ['HTTPS://Quay.IO:443/', 'https://quay.io'],
    ['http://10.0.0.5:5000/mirror//', 'http://10.0.0.5:5000/mirror'],
    ['http://[::1]:5000', 'http://[::1]:5000'],
    ['https://harbor.example/v2/proj/', 'https://harbor.example/v2/proj'],
    ['https://harbor.example//v2//proj/sub//', 'https://harbor.example/v2/proj/sub'],
    ['https://nexus.example//repository/hub', 'https://nexus.example/repository/hub'],
    [
      'https://gitlab.com/v2/group/dependency_proxy/containers',
      'https://gitlab.com/v2/group/dependency_proxy/containers',
    ],
  ])('%s is %s', (text, url) => {
    expect(parseEndpoint(text)).toBe(url);
  });

  test.each([
    ['', 'is empty'],
    ['quay.io', 'is not a URL'],
    ['ftp://quay.io', 'https:// or http://'],
    ['https://quay.io?x=1', 'query'],
    ['https://quay.io/?', 'query'],
    ['https://quay.io#x', 'fragment'],
    ['https://quay.io/v2/', '/v2'],
    ['https://harbor.example/v2/Proj', 'Proj'],
    ['https://harbor.example/v2/a//b', 'a//b'],
    ['https://harbor.example/v2/proj%20x', 'proj%20x'],
    ['https://', 'is not a URL'],
  ])('%j is refused: %s', (text, reason) => {
    const error = refusal(() => parseEndpoint(text));
    expect(error).toMatchObject({ code: 'ENDPOINT_INVALID', usage: true });
    expect(error.message).toContain(reason);
  });

  test('a password in a URL is refused and not repeated', () => {
    for (const error of [
      refusal(() => parseEndpoint('https://bot:hunter2@quay.io')),
      refusal(() => parseRegistryProxy('ftp://bot:hunter2@proxy')),
    ]) {
      expect(`${error.message} ${error.next}`).not.toContain('hunter2');
    }
  });

  test('repetitions are dropped, the order stays', () => {
    expect(parseEndpoints(['https://b.example', 'https://a.example/', 'https://b.example/'])).toEqual([
      'https://b.example',
      'https://a.example',
    ]);
  });

  test('docker.io is the one registry that is elsewhere', () => {
    expect(defaultEndpoints('docker.io')).toEqual(['https://registry-1.docker.io']);
    expect(defaultEndpoints('localhost:5000')).toEqual(['https://localhost:5000']);
  });
});

describe('realms', () => {
  test.each([
    ['Auth.Example.com', 'auth.example.com'],
    ['auth.example.com:08443', 'auth.example.com:8443'],
    ['10.0.0.5', '10.0.0.5'],
    ['[2001:DB8::1]:443', '[2001:db8::1]:443'],
    ['sso', 'sso'],
  ])('%s is %s', (text, host) => {
    expect(parseRealm(text)).toBe(host);
  });

  test.each(['https://auth.example.com', 'auth.example.com/token', '', 'a b', '*.example.com', 'x:0'])(
    '%j is none',
    (text) => {
      expect(refusal(() => parseRealm(text))).toMatchObject({ code: 'REALM_INVALID', usage: true });
    },
  );
});

describe('proxies and credentials', () => {
  test.each(['http://p:3128', 'https://p', 'socks5://127.0.0.1:1080', 'socks5h://u:p@host:1'])(
    '%s is a proxy',
    (url) => {
      expect(parseRegistryProxy(url)).toBe(url);
    },
  );

  test.each(['p:3128', 'socks4://p', 'http://p/path', 'socks5://', 'x'])('%s is none', (url) => {
    expect(refusal(() => parseRegistryProxy(url))).toMatchObject({ code: 'PROXY_INVALID', usage: true });
  });

  test.each([
    ['', 'x'],
    ['a:b', 'x'],
    ['a', ''],
    ['a\t', 'x'],
  ])('the credentials %j %j are refused without repeating the password', (username, password) => {
    const error = refusal(() => parseCredentials({ username, password }));
    expect(error).toMatchObject({ code: 'CREDENTIALS_INVALID', usage: true });
  });

  test('a key file of several lines is a password', () => {
    const key = '{\n\t"type": "service_account"\r\n}\n';
    expect(parseCredentials({ username: '_json_key', password: key })).toEqual({
      username: '_json_key',
      password: key,
    });
  });
});
