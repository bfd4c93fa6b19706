import { describe, expect, it } from 'vitest';
import { isOwnRealm, isOwnTarget, registrableDomain } from '../../../src/upstream/credential-scope.ts';

const realmOf = (host: string, realm: string, more: { endpoints?: string[]; realms?: string[] } = {}) =>
  isOwnRealm(new URL(realm), { host, endpoints: more.endpoints ?? [`https://${host}`], realms: more.realms ?? [] });

describe('a token endpoint that may be sent credentials', () => {
  it.each([
    ['docker.io', 'https://auth.docker.io/token'],
    ['registry.gitlab.com', 'https://gitlab.com/jwt/auth'],
    ['docker.elastic.co', 'https://docker-auth.elastic.co/auth'],
    ['ghcr.io', 'https://ghcr.io/token'],
    ['nvcr.io', 'https://nvcr.io/proxy_auth'],
    ['public.ecr.aws', 'https://public.ecr.aws/token/'],
    ['us-docker.pkg.dev', 'https://us-docker.pkg.dev/v2/token'],
    ['team.azurecr.io', 'https://team.azurecr.io/oauth2/token'],
    ['registry.cn-hangzhou.aliyuncs.com', 'https://dockerauth.cn-hangzhou.aliyuncs.com/auth'],
    ['registry.example.co.uk', 'https://sso.example.co.uk/token'],
    ['registry.example.com:5000', 'https://registry.example.com:5001/token'],
    ['127.0.0.1:5000', 'http://127.0.0.1:6000/token'],
    ['[::1]:5000', 'http://[::1]:6000/token'],
    ['localhost:5000', 'http://localhost:6000/token'],
    ['localhost:5000', 'http://127.0.0.1:6000/token'],
    ['registry.corp.internal', 'https://sso.corp.internal/token'],
  ])('of %s is at %s', (host, realm) => {
    expect(realmOf(host, realm)).toBe(true);
  });

  it.each([
    ['docker.io', 'https://docker.io.evil.example/token'],
    ['docker.io', 'https://evildocker.io/token'],
    ['cr.l5d.io', 'https://ghcr.io/token'],
    ['team.azurecr.io', 'https://evil.azurecr.io/oauth2/token'],
    ['d111111abcdef8.cloudfront.net', 'https://d222222abcdef8.cloudfront.net/token'],
    ['us-docker.pkg.dev', 'https://evil.pkg.dev/token'],
    ['team.jfrog.io', 'https://evil.jfrog.io/token'],
    ['registry.cn-hangzhou.aliyuncs.com', 'https://evil.oss-cn-hangzhou.aliyuncs.com/token'],
    ['team.github.io', 'https://evil.github.io/token'],
    ['a.s3.amazonaws.com', 'https://b.s3.amazonaws.com/token'],
    ['example.co.uk', 'https://evil.co.uk/token'],
    ['127.0.0.1:5000', 'http://127.66.6.6:5000/token'],
    ['10.0.0.5:5000', 'http://10.0.0.6:5000/token'],
    ['[::1]:5000', 'http://[::2]:5000/token'],
    ['localhost:5000', 'http://127.66.6.6:5000/token'],
    ['localhost:5000', 'http://registry:5000/token'],
    ['registry:5000', 'http://evil:5000/token'],
  ])('of %s is not at %s', (host, realm) => {
    expect(realmOf(host, realm)).toBe(false);
  });

  it('may be on the domain of an endpoint too, which the operator wrote', () => {
    const endpoints = ['https://registry-1.docker.io', 'https://mirror.example.com'];
    expect(realmOf('docker.io', 'https://sso.example.com/token', { endpoints })).toBe(true);
    expect(realmOf('docker.io', 'https://sso.example.org/token', { endpoints })).toBe(false);
  });

  it('may be named by the operator: on every port, or on the one that is written', () => {
    const realms = ['sso.example.org', '10.0.0.9:8443', 'a.example.net:443'];
    const at = (realm: string) => realmOf('quay.io', realm, { realms });
    expect(at('https://sso.example.org/token')).toBe(true);
    expect(at('https://sso.example.org:8443/token')).toBe(true);
    expect(at('https://sub.sso.example.org/token')).toBe(false);
    expect(at('https://10.0.0.9:8443/token')).toBe(true);
    expect(at('https://10.0.0.9/token')).toBe(false);
    expect(at('https://a.example.net/token')).toBe(true);
  });
});

describe('a redirect’s target that may be sent credentials', () => {
  const own = (host: string, target: string, realms: string[] = []) => {
    const endpoint = new URL(`http://${host}`);
    return isOwnTarget(new URL(target), endpoint, { host, endpoints: [endpoint.href], realms });
  };

  it('is on the same domain, or named', () => {
    expect(own('registry.example.com', 'https://eu.example.com/v2/')).toBe(true);
    expect(own('registry.example.com', 'https://cdn.example.net/v2/')).toBe(false);
    expect(own('registry.example.com', 'https://cdn.example.net/v2/', ['cdn.example.net'])).toBe(true);
  });

  it('is no other service on the same address', () => {
    expect(own('127.0.0.1:5000', 'http://127.0.0.1:5000/v2/')).toBe(true);
    expect(own('127.0.0.1:5000', 'http://127.0.0.1:6000/v2/')).toBe(false);
    expect(own('localhost:5000', 'http://localhost:6000/v2/')).toBe(false);
  });
});

it('addresses, single labels and public suffixes have no registrable domain', () => {
  for (const host of ['127.0.0.1', '::1', 'localhost', 'co.uk', 'github.io'])
    expect(registrableDomain(host)).toBeNull();
});
