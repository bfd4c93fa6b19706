import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { makeDataDirectory } from '../support/data-directory.ts';
import { withoutTrial } from '../support/without-trial.ts';

// Commands on a data directory that no gateway works on, each as a run of its own, in this process.

let home: string;

beforeEach(async () => {
  home = await mkdtemp(path.join(tmpdir(), 'gateway-cli-'));
  await makeDataDirectory({ GATEWAY_DATA_DIR: path.join(home, 'data') });
});

afterEach(async () => {
  await rm(home, { recursive: true, force: true });
});

interface Surroundings {
  readonly stdin?: string | Buffer;
  /** Standard input is a terminal's. */
  readonly terminal?: boolean;
  readonly env?: NodeJS.ProcessEnv;
}

async function cli(line: string | string[], options: Surroundings = {}) {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const code = await run({
    argv: withoutTrial(typeof line === 'string' ? line.split(' ') : line),
    stdout,
    stderr,
    stdin: Object.assign(Readable.from([Buffer.from((options.stdin ?? '') as string)]), { isTTY: options.terminal }),
    env: { RUNTIME_DIRECTORY: path.join(home, 'run'), ...options.env },
    cwd: home,
    signal: new AbortController().signal,
  });
  // Where it acts is said by each command, and looked at in cli-reach.test.ts.
  const err = String(stderr.read() ?? '').replace(/^gateway: nothing runs on .* when it starts\n/, '');
  return { code, out: String(stdout.read() ?? ''), err };
}

const json = async (line: string) => JSON.parse((await cli(line)).out);

describe('exit codes', () => {
  test.each([
    ['--help', 0],
    ['alias --help', 0],
    ['--version', 0],
    ['help alias', 0],
    ['', 2],
    ['alias', 2],
    ['alais ls', 2],
    ['alias lss', 2],
    ['alias add', 2],
    ['alias add one quay.io more', 2],
    ['alias ls --nonsense', 2],
    ['alias ls --jsno', 2],
    ['client', 2],
    ['client docekr', 2],
    ['--data-dir', 2],
  ])('gateway %s: %d', async (line, code) => {
    const result = await cli(line === '' ? [] : line);
    expect(result.code).toBe(code);
    // Usage is no result: it goes to standard error.
    expect(result.out === '').toBe(code === 2);
  });

  test('an unknown command gets a suggestion', async () => {
    expect((await cli('alais ls')).err).toBe(
      "gateway: unknown command 'alais'\n  (Did you mean alias?)\n  see: gateway --help\n",
    );
  });

  test('malformed values are usage, what the table refuses is a failure', async () => {
    expect((await cli(['alias', 'add', 'a b', 'quay.io'])).code).toBe(2);
    expect((await cli('alias add ok https://quay.io')).code).toBe(2);
    expect((await cli('alias add ok quay.io --endpoint nope')).code).toBe(2);
    expect((await cli('alias add quay ghcr.io')).code).toBe(1);
    expect((await cli('alias show none')).code).toBe(1);
    expect((await cli('registry rm quay.io')).code).toBe(1);
    expect((await cli('registry rm none.example')).code).toBe(1);
    expect((await cli('cert renew quay')).code).toBe(1);
    expect((await cli(['cert', 'show', 'no host!'])).code).toBe(2);
    expect((await cli('cache prune --older-than 5x')).code).toBe(2);
    // Before anybody is asked whether to.
    expect((await cli('cache prune --older-than fish')).err).toContain('"fish" is not a duration');
    expect((await cli('user rm nobody')).code).toBe(1);
    expect((await cli('alias import missing.yaml')).code).toBe(2);
  });

  test('a wrong configuration is usage, and every problem is told', async () => {
    await writeFile(path.join(home, 'gateway.yaml'), 'domian: x\nlisten: {https: 99999999}\n');
    const { code, err } = await cli('alias ls');
    expect(code).toBe(2);
    expect(err).toContain('domian');
    expect(err).toContain('listen.https');
  });
});

test.each([
  ['alias show quya', 'did you mean quay?'],
  ['alias rm quya', 'did you mean quay?'],
  ['registry show quay.oi', 'did you mean quay.io?'],
  ['registry rm quay.oi', 'did you mean quay.io?'],
  ['cache prune --yes --registry quay.oi', 'did you mean quay.io?'],
  ['cert show quya.localhost', 'did you mean quay.localhost?'],
  ['cert renew quya', 'did you mean quay?'],
  ['client docekr', 'Did you mean docker?'],
  ['alias ls --jsno', 'Did you mean --json?'],
  ['cache prnue', 'Did you mean prune?'],
])('gateway %s: %s', async (line, meant) => {
  expect((await cli(line)).err).toContain(meant);
});

describe('--json', () => {
  test.each([
    ['alias add hub quay.io --json', { alias: { name: 'hub' }, created: { alias: true, registry: false } }],
    ['alias rm quay --json', { name: 'quay', registry: 'quay.io' }],
    ['alias import table.yaml --json', { registriesAdded: 1 }],
    ['alias import --presets --json', { differences: [] }],
    ['registry set quay.io --public --no-check --json', { host: 'quay.io', public: true }],
    ['registry rm lscr.io --json', { host: 'lscr.io' }],
    ['cert explain quay --json', { host: 'quay.localhost' }],
    ['user add bob --json', { name: 'bob', token: expect.any(String) }],
    ['cache prune --yes --json', { blobs: 0 }],
    ['cache verify --json', { dropped: [] }],
  ])('gateway %s: one value on standard output', async (line, value) => {
    await writeFile(path.join(home, 'table.yaml'), 'registries: {new.example: {}}\n');
    const { code, out } = await cli(line.replace('table.yaml', path.join(home, 'table.yaml')));
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject(value);
  });

  test.each([
    ['alias show none --json', 1, 'ALIAS_UNKNOWN'],
    ['cert renew quay --json', 1, 'NOT_RUNNING'],
    ['cache prune --json', 2, 'ANSWER_NEEDED'],
    ['alias ls --json --nonsense', 2, 'INPUT_INVALID'],
    ['alias ls --json --data-dir nowhere', 1, 'NO_GATEWAY'],
  ])('a failure is JSON too: gateway %s', async (line, exit, code) => {
    const failed = await cli(line);
    expect(failed.code).toBe(exit);
    expect(JSON.parse(failed.out)).toEqual({
      error: { code, message: expect.stringMatching(/\w/), next: expect.stringMatching(/\w/) },
    });
    expect(failed.err).toMatch(/^gateway: /);
  });
});

describe('the options of every command', () => {
  test('go before it and after it', async () => {
    const config = path.join(home, 'other.yaml');
    await writeFile(config, 'domain: cr.example.com\ntls: {mode: "off"}\n');
    const data = path.join(home, 'd');
    await makeDataDirectory({ GATEWAY_DATA_DIR: data });
    for (const line of [
      ['--config', config, '--data-dir', data, 'alias', 'show', 'quay'],
      ['alias', '--config', config, '--data-dir', data, 'show', 'quay'],
      ['alias', 'show', 'quay', '--config', config, '--data-dir', data],
      ['alias', 'show', '--data-dir', data, 'quay', `--config=${config}`],
    ]) {
      const { out, code } = await cli([...line, '--json']);
      expect(code).toBe(0);
      expect(JSON.parse(out).host).toBe('quay.cr.example.com');
    }
  });

  test('a variable that is none of ours is warned of by name, on standard error', async () => {
    const { code, out, err } = await cli('alias ls --json', { env: { GATEWAY_DOMIAN: 'x' } });
    expect(code).toBe(0);
    expect(err).toContain('GATEWAY_DOMIAN');
    expect(JSON.parse(out)).toHaveLength(15);
  });
});

describe('aliases and registries', () => {
  test('a new table is filled, and --json has exactly the rows of the contract', async () => {
    const rows = await json('alias ls --json');
    expect(rows.find((row: { name: string }) => row.name === 'k8s-gcr')).toEqual({
      name: 'k8s-gcr',
      host: 'k8s-gcr.localhost',
      registry: 'k8s.gcr.io',
      certificate: { state: expect.any(String), notAfter: expect.anything() },
    });
    const registries = await json('registry ls --json');
    expect(registries.find(({ host }: { host: string }) => host === 'docker.io')).toEqual({
      host: 'docker.io',
      endpoints: ['https://registry-1.docker.io'],
      proxy: null,
      credentials: false,
      public: false,
      realms: [],
      named: [],
    });
    const [certificate] = await json('cert ls --json');
    expect(Object.keys(certificate)).toEqual(
      expect.arrayContaining([
        'host',
        'state',
        'issuer',
        'serial',
        'notBefore',
        'notAfter',
        'lastError',
        'nextAttempt',
      ]),
    );
  });

  test('add says what happens at the next start, twice is no error, rm and add again', async () => {
    const added = await cli('alias add hub docker.example.com --endpoint http://127.0.0.1:5000');
    expect(added).toMatchObject({ code: 0, err: '' });
    expect(added.out).toContain('hub (hub.localhost) stands for docker.example.com');
    expect(added.out).toContain(`nothing runs on ${path.join(home, 'data')}: `);
    expect(added.out).toContain('when the gateway starts');
    expect((await cli('alias add hub docker.example.com')).code).toBe(0);
    expect((await json('registry show docker.example.com --json')).endpoints).toEqual(['http://127.0.0.1:5000']);

    expect((await cli('registry rm docker.example.com')).err).toContain('hub');
    expect((await cli('alias rm hub')).code).toBe(0);
    expect((await cli('alias rm hub')).code).toBe(1);
    expect((await cli('registry rm docker.example.com')).code).toBe(0);
  });

  test('with ACME the order waits for the gateway, with --no-cert there is none', async () => {
    const env = { GATEWAY_DOMAIN: 'cr.example.com' };
    expect((await cli('alias add one quay.io', { env })).out).toContain(
      'the certificate is ordered when the gateway starts',
    );
    expect((await cli('alias add two quay.io --no-cert', { env })).out).not.toContain('ordered when');
    const rows = JSON.parse((await cli('alias ls --json', { env })).out) as {
      name: string;
      certificate: { state: string };
    }[];
    const state = (name: string) => rows.find((row) => row.name === name)?.certificate.state;
    expect(state('one')).toBe('pending');
    expect(state('two')).toBe('none');
  });

  test('credentials come from standard input and are never shown', async () => {
    const set = 'registry set private.example --username bob';
    expect((await cli(set)).code).toBe(2);
    expect((await cli('registry set private.example --password-stdin', { stdin: 'x' })).code).toBe(2);
    expect((await cli(`${set} --password-stdin`, { stdin: '\n' })).code).toBe(2);
    // A byte order mark is no part of a password, and what is no text would be kept as another one.
    expect((await cli(`${set} --password-stdin`, { stdin: '\ufeff\n' })).code).toBe(2);
    const latin1 = await cli(`${set} --password-stdin`, { stdin: Buffer.from('pässword', 'latin1') });
    expect(latin1).toMatchObject({ code: 2, err: expect.stringContaining('no text in UTF-8') });
    const done = await cli(`${set} --password-stdin --public --proxy http://u:pw1@proxy:3128`, { stdin: 's3cret\n' });
    expect(done).toMatchObject({ code: 0, err: '' });
    for (const line of ['registry ls', 'registry show private.example', 'registry ls --json', 'alias export']) {
      const { out, code } = await cli(line);
      expect(code).toBe(0);
      expect(out).toContain('private.example');
      expect(out).not.toMatch(/s3cret|pw1/);
    }
    expect(await json('registry show private.example --json')).toMatchObject({ credentials: true, public: true });
    expect(
      (await cli(['registry', 'set', 'private.example', '--username', '', '--proxy', 'none', '--no-public'])).code,
    ).toBe(0);
    expect(await json('registry show private.example --json')).toMatchObject({
      credentials: false,
      public: false,
      proxy: null,
    });
  });

  test('credentials for some repositories are set, shown without passwords, moved and removed', async () => {
    const host = 'owners.example';
    const set = (...args: string[]) => cli(['registry', 'set', host, '--no-check', ...args], { stdin: 's3cret\n' });
    const login = ['--username', 'bob', '--password-stdin'];
    const named = async () => (await json(`registry show ${host} --json`)).named;
    expect((await set('--for', 'team/*', ...login)).err).toContain('--credential');
    expect((await set('--credential', 'a', ...login)).err).toContain('no repositories');
    expect((await set('--credential', 'a', '--for', 'team/*')).err).toContain('no user name');
    expect((await set('--credential', 'a')).err).toContain('what is to change');
    const done = await set('--credential', 'a', '--for', 'team/*', '--for', 'partner/app', ...login);
    expect(done).toMatchObject({
      code: 0,
      out: expect.stringContaining('team/*, partner/app are asked for as bob (a)'),
    });
    expect(await named()).toEqual([{ name: 'a', for: ['team/*', 'partner/app'], username: 'bob' }]);
    expect(await json(`registry show ${host} --json`)).toMatchObject({ credentials: false });
    expect(await set('--credential', 'b', '--for', 'team/*', ...login)).toMatchObject({
      code: 1,
      err: expect.stringContaining('is what the credentials a are for'),
    });
    expect((await set('--credential', 'b', '--for', 'team/app', ...login)).code).toBe(0);
    expect((await set('--credential', 'a', '--for', 'other/*')).code).toBe(0);
    expect((await cli(`registry show ${host}`)).out).toMatch(/other\/\*: a \(user bob\)\n +team\/app: b \(user bob\)/);
    for (const line of ['registry ls', `registry show ${host} --json`, 'registry ls --json', 'alias export']) {
      expect((await cli(line)).out).not.toContain('s3cret');
    }
    expect(await set('--credential', 'c', '--username', '')).toMatchObject({
      code: 1,
      err: expect.stringContaining('it has a, b'),
    });
    expect((await set('--credential', 'a', '--username', '')).out).toContain('no credentials a any more');
    expect(await named()).toEqual([{ name: 'b', for: ['team/app'], username: 'bob' }]);
    // What is imported keeps what an export leaves out.
    expect((await cli('alias import -', { stdin: (await cli('alias export')).out })).code).toBe(0);
    expect(await named()).toHaveLength(1);
  });

  test('a key file of several lines is taken as a password; realms are set, replaced, exported and removed', async () => {
    const stdin = '{\n  "type": "service_account",\n  "private_key": "-----BEGIN\\n"\n}\n';
    const set =
      'registry set gcr.example --username _json_key --password-stdin --realm auth.example --realm 10.0.0.9:8443';
    expect(await cli(set, { stdin })).toMatchObject({ code: 0, err: '' });
    expect(await json('registry show gcr.example --json')).toMatchObject({
      credentials: true,
      realms: ['auth.example', '10.0.0.9:8443'],
    });
    expect((await cli('registry show gcr.example')).out).toMatch(/realms: +auth\.example/);
    const replaced = await cli('registry set gcr.example --realm sso.example');
    expect(replaced.out).toContain('its credentials may be sent to its own domain, sso.example');
    expect(await cli('registry set gcr.example --realm=')).toMatchObject({
      code: 2,
      err: expect.stringContaining('write the host alone'),
    });
    expect((await json('registry show gcr.example --json')).realms).toEqual(['sso.example']);
    expect((await cli('alias export')).out).toContain('realms: [sso.example]');
    await cli('registry set gcr.example --realm none');
    expect((await json('registry show gcr.example --json')).realms).toEqual([]);
    expect(await cli('registry set gcr.example --realm https://sso.example')).toMatchObject({ code: 2 });
  });

  test('what is exported can be imported, from a file and from standard input', async () => {
    await cli('alias add hub docker.example.com --no-cert');
    const { out: yaml } = await cli('alias export');
    const other = ['--data-dir', path.join(home, 'other')];
    await makeDataDirectory({ GATEWAY_DATA_DIR: path.join(home, 'other') });
    const first = await cli(['alias', 'import', '-', ...other], { stdin: yaml });
    expect(first).toMatchObject({ code: 0, out: 'registries: 1 added, 0 changed\naliases: 1 added, 0 changed\n' });
    await writeFile(path.join(home, 'table.yaml'), yaml);
    const again = await cli(['alias', 'import', path.join(home, 'table.yaml'), ...other]);
    expect(again.out).toBe('registries: 0 added, 0 changed\naliases: 0 added, 0 changed\n');
    expect((await cli(['alias', 'export', ...other])).out).toBe(yaml);
    expect((await cli(['alias', 'import', '-', ...other], { stdin: 'registries: [1]' })).code).toBe(2);
  });
});

describe('config show', () => {
  const hidden =
    'domain: cr.example.com\nacme: {issuers: [{eab: {keyId: k, hmacKey: c2VjcmV0c2VjcmV0c2VjcmV0}}]}\nupstream: {proxy: "http://u:hunter2@p:3128"}\n';

  test('has each value with its origin and no secret, with a gateway or without', async () => {
    await writeFile(path.join(home, 'gateway.yaml'), hidden);
    const env = { GATEWAY_CACHE_MAX_SIZE: '5GiB' };
    const shown = await cli('config show --json --data-dir data', { env });
    expect(shown.code).toBe(0);
    const { file, running, settings } = JSON.parse(shown.out) as {
      file: string;
      running: boolean;
      settings: { key: string; value: string; origin: object }[];
    };
    expect({ file, running }).toEqual({ file: path.join(home, 'gateway.yaml'), running: false });
    const of = (key: string) => settings.find((one) => one.key === key);
    expect(of('domain')).toMatchObject({ value: 'cr.example.com', origin: { kind: 'file', file, line: 1 } });
    expect(of('cache.maxSize')).toMatchObject({
      value: '5GiB',
      origin: { kind: 'environment', variable: 'GATEWAY_CACHE_MAX_SIZE' },
    });
    expect(of('dataDir')).toMatchObject({ origin: { kind: 'flag', flag: '--data-dir' } });
    expect(of('cache.tagTtl')).toMatchObject({ value: '1m', origin: { kind: 'default' } });
    for (const line of ['config show', 'config show --json']) {
      const { out, err } = await cli(line, { env });
      expect(out + err).not.toMatch(/hunter2|c2Vjcm/);
    }
  });

  test('takes keys and sections, and tells the nearest', async () => {
    expect((await cli('config show cache.tagTtl')).out).toMatch(/^KEY.*\ncache\.tagTtl +1m +default\n$/);
    expect((await cli('config show cache')).out.split('\n').length).toBeGreaterThan(5);
    expect(await cli('config show cahce')).toMatchObject({
      code: 2,
      err: expect.stringContaining('did you mean cache?'),
    });
  });
});

test('users: the token is printed once, alone on standard output', async () => {
  const added = await cli('user add bob');
  // As image names write it: the port is a part of where a login is for.
  expect(added.err).toContain('docker login -u bob localhost:8443');
  expect(added.out).toMatch(/^\S{20,}\n$/);
  expect(added.err).toContain('anonymous');
  const again = await cli('user add bob');
  expect([again.code, again.err]).toEqual([1, expect.stringContaining('gateway user rotate bob')]);
  expect((await cli(['user', 'add', 'a:b'])).code).toBe(2);
  expect(await json('user ls --json')).toMatchObject([
    { name: 'bob', createdAt: expect.stringMatching(/^20/), expiresAt: null, lastUsedAt: null, state: 'valid' },
  ]);
  expect((await cli('user ls')).out).not.toContain(added.out.trim());
  const removed = await cli('user rm bob');
  expect([removed.code, removed.out]).toEqual([0, 'removed bob; its token does not work any more\n']);
  expect(removed.err).toMatch(
    /the last user, and the gateway stays closed.*gateway user add NAME.*access\.anonymous: true/,
  );
  expect(await json('user ls --json')).toEqual([]);
  // The second first user changes nothing for anonymous clients.
  expect((await cli('user add bob')).err).not.toContain('anonymous');
  const withRule = (anonymous: string) => ({ env: { GATEWAY_ACCESS_ANONYMOUS: anonymous } });
  expect((await cli('user rm bob', withRule('false'))).err).toContain('nobody can pull until there is one again');
  await cli('user add bob');
  expect((await cli('user rm bob', withRule('10.0.0.0/8,::1'))).err).toContain('only clients in 10.0.0.0/8, ::1/128');
});

test('users: expiry and rotation', async () => {
  const before = Date.now();
  const added = (await json('user add ann --expires 30d --json')) as { token: string; expiresAt: string };
  expect(Math.round((Date.parse(added.expiresAt) - before) / 86_400_000)).toBe(30);
  expect((await cli(['user', 'add', 'eve', '--expires', '2020-01-01'])).code).toBe(2);
  expect((await cli(['user', 'add', 'eve', '--expires', 'soon'])).err).toContain('expires: "soon" is not a duration');
  const rotated = await cli('user rotate ann --grace 1h');
  expect(rotated.out).toMatch(/^rgw_\S+\n$/);
  expect(rotated.out.trim()).not.toBe(added.token);
  expect(rotated.err).toContain('the old token of ann works until');
  expect(rotated.err).toContain('it expires at');
  expect((await cli('user ls')).out).toMatch(/ann +valid, old token too +20\d\d-\d\d-\d\d +in (29|30) d.* never/);
  expect(await json('user rotate ann --expires never --json')).toMatchObject({ expiresAt: null, previousUntil: null });
  const unknown = await cli('user rotate anne');
  expect([unknown.code, unknown.err]).toEqual([1, expect.stringContaining('did you mean ann?')]);
  expect(await json('user rm ann --json')).toEqual({ name: 'ann' });
});

test('status and the cache say that nothing runs, and what there is', async () => {
  expect(await cli('status')).toMatchObject({
    code: 1,
    out: expect.stringContaining(`nothing runs on ${path.join(home, 'data')}`),
  });
  expect(await json('status --json')).toMatchObject({ running: false, pid: null, aliases: 15, registries: 25 });
  expect(await json('cache stats --json')).toMatchObject({ bytes: 0, blobs: 0, hitRatio: null });
  expect(await cli('cache prune')).toMatchObject({ code: 2, err: expect.stringMatching(/Drop everything.*\n.*--yes/) });
  expect(await cli('cache prune', { stdin: 'n\n', terminal: true })).toMatchObject({ code: 1, out: '' });
  expect(await cli('cache prune', { stdin: 'y\n', terminal: true })).toMatchObject({ code: 0 });
  expect((await cli('cache prune --yes')).out).toBe('dropped 0 blobs (0 B) and 0 manifests\n');
  expect(await json('cache verify --json')).toMatchObject({ blobs: 0, dropped: [] });
});

test('without certificates of its own the gateway says so', async () => {
  const env = { GATEWAY_TLS_MODE: 'off' };
  expect((await cli('cert ls --json', { env })).out).toBe('[]\n');
  expect((await cli('cert show quay', { env })).err).toContain('tls.mode is off');
  expect((await cli('alias add hub quay.io', { env })).out).toContain('tls.mode is off');
});

test('client prints the configuration of this very gateway', async () => {
  const env = { GATEWAY_DOMAIN: 'cr.example.com' };
  const { out, code } = await cli('client docker', { env });
  expect(code).toBe(0);
  expect(out).toContain(
    '# ---- /etc/docker/daemon.json\n{\n  "registry-mirrors": [\n    "https://cr.example.com"\n  ]\n}\n',
  );
  expect(JSON.parse((await cli('client podman --json', { env })).out).files[0].path).toContain('/etc/containers/');
  // The embedded default has a CA of its own, which clients must be given.
  expect((await cli('client docker')).out).toContain('# ---- /etc/docker/certs.d/localhost:8443/ca.crt\n-----BEGIN');
});

test('presets: shown, taken with --yes, and then the table has them all', async () => {
  await cli('registry rm lscr.io');
  const shown = await cli('alias import --presets');
  expect(shown).toMatchObject({ code: 2, err: expect.stringContaining('--yes') });
  expect(shown.out).toContain('+ the registry lscr.io is added');
  // At a terminal it asks; Ctrl-D is no answer.
  for (const stdin of ['n\n', '']) {
    const asked = await cli('alias import --presets', { stdin, terminal: true });
    expect(asked).toMatchObject({ code: 1, err: expect.stringContaining('Take this into the table? [y/N] gateway: ') });
    expect(asked.err).toContain('nothing was changed');
  }
  expect((await cli('registry show lscr.io')).code).toBe(1);
  expect((await cli('alias import --presets', { stdin: 'y\n', terminal: true })).code).toBe(0);
  expect((await cli('registry show lscr.io')).code).toBe(0);
  await cli('registry rm lscr.io');
  await cli('alias rm ollama');
  const env = { GATEWAY_DOMAIN: 'cr.example.com' };
  const taken = await cli('alias import --presets --yes', { env });
  expect(taken).toMatchObject({ code: 0, out: expect.stringContaining('taken into the table: 2') });
  // Neither a registry nor an alias that is to have none gets a certificate.
  expect(taken.out).not.toContain('certificates are ordered');
  await cli('alias rm quay');
  expect((await cli('alias import --presets --yes', { env })).out).toContain('their certificates are ordered when');
  expect((await cli('registry show lscr.io')).code).toBe(0);
  expect((await cli('alias import --presets')).out).toContain('has all');
  expect([(await cli('alias import')).code, (await cli('alias import f.yaml --presets')).code]).toEqual([2, 2]);
});

test('a registry of a pattern is shown without a row of its own', async () => {
  const row = await json('registry show us-docker.pkg.dev --json');
  expect(row).toMatchObject({ host: 'us-docker.pkg.dev', endpoints: ['https://us-docker.pkg.dev'] });
  expect((await json('registry ls --json')).map(({ host }: { host: string }) => host)).toContain('*.pkg.dev');
});
