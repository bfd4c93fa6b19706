import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keptLogin, loginFiles } from '../../../src/clients/logins/auth-files.ts';

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'logins-'));
});
afterEach(() => rmSync(home, { recursive: true }));

const basic = (text: string) => Buffer.from(text).toString('base64');
const write = (path: string, value: unknown) => {
  mkdirSync(dirname(join(home, path)), { recursive: true });
  writeFileSync(join(home, path), typeof value === 'string' ? value : JSON.stringify(value));
};
const login = (image: string, env: NodeJS.ProcessEnv = {}) => {
  const slash = image.indexOf('/');
  const [registry, repository] = [image.slice(0, slash), image.slice(slash + 1)];
  const surroundings = { env: { PATH: `${home}/bin:${process.env.PATH}`, ...env }, home, uid: undefined };
  return keptLogin({ registry, repository }, { ...surroundings, signal: AbortSignal.timeout(20_000) });
};
/** A program that is found on the PATH. */
const helper = (name: string, script: string) => {
  write(`bin/docker-credential-${name}`, `#!/bin/sh\n${script}\n`);
  chmodSync(join(home, `bin/docker-credential-${name}`), 0o755);
};

it('files are Docker’s, then podman’s', () => {
  expect(loginFiles({ env: {}, home: '/h', uid: 5 })).toEqual([
    '/h/.docker/config.json',
    '/run/containers/5/auth.json',
    '/h/.config/containers/auth.json',
  ]);
  const env = { DOCKER_CONFIG: '/d', REGISTRY_AUTH_FILE: '/a.json', XDG_RUNTIME_DIR: '/r', XDG_CONFIG_HOME: '/c' };
  expect(loginFiles({ env, home: '/h', uid: undefined })).toEqual([
    '/d/config.json',
    '/a.json',
    '/r/containers/auth.json',
    '/c/containers/auth.json',
  ]);
});

describe('a login', () => {
  it('is that of the registry, however its key is written', async () => {
    write('.docker/config.json', {
      auths: {
        'https://index.docker.io/v1/': { auth: basic('hub:of:colons') },
        'https://Registry.example/v2/': { username: 'bob', password: 'b' },
        'other.example:5000': { auth: basic('olaf:o') },
        'token.example': { auth: basic('00000000-0000-0000-0000-000000000000:'), identitytoken: 'refresh' },
        'empty.example': {},
      },
    });
    expect(await login('docker.io/library/alpine')).toEqual({ username: 'hub', password: 'of:colons' });
    expect(await login('registry.example/a/b')).toEqual({ username: 'bob', password: 'b' });
    expect(await login('other.example:5000/a')).toEqual({ username: 'olaf', password: 'o' });
    expect(await login('token.example/a')).toMatchObject({ identityToken: 'refresh', password: '' });
    expect(await login('empty.example/a')).toBeNull();
    expect(await login('other.example/a')).toBeNull();
  });

  it('is the one of the repository, where podman has several', async () => {
    write('.config/containers/auth.json', {
      auths: {
        'quay.io': { auth: basic('all:1') },
        'quay.io/org': { auth: basic('org:2') },
        'quay.io/org/app': { auth: basic('app:3') },
      },
    });
    expect(await login('quay.io/org/app')).toMatchObject({ username: 'app' });
    expect(await login('quay.io/org/app/deep')).toMatchObject({ username: 'app' });
    expect(await login('quay.io/org/other')).toMatchObject({ username: 'org' });
    expect(await login('quay.io/organisation/app')).toMatchObject({ username: 'all' });
  });

  it('is that of the first file that has one', async () => {
    write('.docker/config.json', { auths: { 'one.example': { auth: basic('docker:1') } } });
    write('auth.json', {
      auths: { 'one.example': { auth: basic('podman:1') }, 'two.example': { auth: basic('podman:2') } },
    });
    const env = { REGISTRY_AUTH_FILE: join(home, 'auth.json') };
    expect(await login('one.example/a', env)).toMatchObject({ username: 'docker' });
    expect(await login('two.example/a', env)).toMatchObject({ username: 'podman' });
  });

  it('is not looked for in what cannot be read, which is said without a word of it', async () => {
    write('.docker/config.json', '{"auths": {"one.example": {"auth": "c2VjcmV0OnNlY3JldA=="');
    const failure = await login('one.example/a').catch((error: unknown) => error);
    expect(failure).toMatchObject({
      code: 'LOGIN_UNREADABLE',
      message: `${home}/.docker/config.json is not written in JSON`,
    });
    write('auth.json', { auths: { 'one.example': { auth: basic('podman:1') } } });
    expect(await login('one.example/a', { REGISTRY_AUTH_FILE: join(home, 'auth.json') })).toMatchObject({
      username: 'podman',
    });
  });

  it('that is no login is refused', async () => {
    write('.docker/config.json', { auths: { 'one.example': { auth: basic('no colon') } } });
    await expect(login('one.example/a')).rejects.toMatchObject({ code: 'LOGIN_UNREADABLE' });
  });
});

describe('a credential helper', () => {
  it('is asked on its standard input, the registry’s own before the one for all', async () => {
    helper(
      'own',
      `read server; echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"own\\",\\"Secret\\":\\"$server $1\\"}"`,
    );
    helper('all', `read server; echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"$server\\"}"`);
    write('.docker/config.json', { credsStore: 'all', credHelpers: { 'one.example': 'own' } });
    expect(await login('one.example/a')).toEqual({ username: 'own', password: 'one.example get' });
    expect(await login('docker.io/library/a')).toEqual({
      username: '',
      password: '',
      identityToken: 'https://index.docker.io/v1/',
    });
  });

  it('that knows nothing leaves it to the file', async () => {
    helper('all', 'echo "credentials not found in native keychain"; exit 1');
    write('.docker/config.json', { credsStore: 'all', auths: { 'one.example': { auth: basic('file:1') } } });
    expect(await login('one.example/a')).toMatchObject({ username: 'file' });
    expect(await login('two.example/a')).toBeNull();
  });

  it.each([
    ['that fails', 'echo "the keychain is locked" >&2; exit 3', 'the keychain is locked'],
    ['that gives no JSON', 'echo nothing', 'gave no login'],
    ['that gives too much', 'head -c 1000000 /dev/zero', 'gave no fit answer in time'],
  ])('%s is said', async (_, script, words) => {
    helper('all', script);
    write('.docker/config.json', { credsStore: 'all' });
    await expect(login('one.example/a')).rejects.toMatchObject({
      code: 'LOGIN_UNREADABLE',
      message: expect.stringContaining(words),
    });
  });

  it('that is not there is said', async () => {
    write('.docker/config.json', { credsStore: 'nowhere' });
    await expect(login('one.example/a')).rejects.toMatchObject({
      message: expect.stringContaining('is not there: docker-credential-nowhere'),
    });
  });

  it.each(['../../bin/sh', 'a/b', 'x; touch y', '-x', ' ', 'a\nb'])('is no other program: %j', async (name) => {
    write('.docker/config.json', { credsStore: name });
    await expect(login('one.example/a')).rejects.toMatchObject({
      message: expect.stringContaining('is no name of one'),
    });
  });
});
