import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readCrproxy } from '../../../../src/admin/import/crproxy.ts';
import { flagsIn } from '../../../../src/admin/import/crproxy-flags.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'import-crproxy-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function read(files: Record<string, string>, env: NodeJS.ProcessEnv = {}) {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), content);
  }
  const { rows, leftOut, notes, storages } = await readCrproxy(dir, env);
  const aliases = Object.fromEntries(rows.flatMap(({ host, aliases: all }) => all.map(({ name }) => [name, host])));
  return { rows, aliases, left: leftOut.map(({ what }) => what.replaceAll(`${dir}/`, '')), notes, storages };
}

const compose = (command: string, more = '') => `
services:
  crproxy:
    image: ghcr.io/daocloud/crproxy/crproxy:v0.9.1
    command: ${command}
${more}`;

describe('flags', () => {
  test.each([
    ['a text of several lines with comments', ['# first\n-u a:b@quay.io # why\n--default-registry docker.io\n']],
    ['words', ['-u', 'a:b@quay.io', '--default-registry', 'docker.io']],
    ['with =', ['--user=a:b@quay.io --default-registry="docker.io"']],
  ])('of %s', (_, parts) => {
    expect(flagsIn(parts)).toEqual([
      { name: 'user', value: 'a:b@quay.io' },
      { name: 'default-registry', value: 'docker.io' },
    ]);
  });

  test('that are switches take no value with them', () => {
    expect(flagsIn(['--behind --simple-auth=false -a :8080'])).toEqual([
      { name: 'behind', value: 'true' },
      { name: 'simple-auth', value: 'false' },
      { name: 'address', value: ':8080' },
    ]);
  });
});

describe('a deployment', () => {
  test('by compose: credentials, hosts that stand for registries, a list of hosts', async () => {
    const { rows, aliases, left } = await read({
      'docker-compose.yml': compose(`|
      -u bot:p:w@quay.io,other:pw@docker.io
      --override-default-registry ghcr.example.com=ghcr.io
      --allow-host-list quay.io,gcr.io --domain-alias hub.example.com=registry-1.docker.io
      --retry 3 --link-expires 1h`),
    });
    expect(rows.find(({ host }) => host === 'quay.io')).toEqual({
      host: 'quay.io',
      credentials: { username: 'bot', password: 'p:w' },
      public: true,
      aliases: [],
    });
    expect(rows.map(({ host }) => host).sort()).toEqual([
      'docker.io',
      'gcr.io',
      'ghcr.io',
      'hub.example.com',
      'quay.io',
    ]);
    expect(aliases).toEqual({ 'ghcr.example.com': 'ghcr.io' });
    expect(left).toEqual([]);
  });

  test('where clients had to log in, what credentials open stays closed, and users are listed without their passwords', async () => {
    const { rows, left } = await read({
      'compose.yaml': compose('["--simple-auth", "--simple-auth-user", "ann=s3cret", "-u", "bot:pw@quay.io"]'),
    });
    expect(rows).toMatchObject([{ host: 'quay.io', public: false }]);
    expect(left).toEqual(['compose.yaml (crproxy): --simple-auth-user ann: a password cannot be taken over']);
  });

  test('with variables of .env, which the environment overrides', async () => {
    const files = {
      '.env': 'USER_AT=a:b@quay.io\nHOST="ghcr.example.com"\n',
      'docker-compose.yaml': compose(`-u \${USER_AT} --override-default-registry \${HOST:-x}=\${ORIGIN:-gcr.io}`),
    };
    const { rows, aliases } = await read(files, { ORIGIN: 'ghcr.io' });
    expect(aliases).toEqual({ 'ghcr.example.com': 'ghcr.io' });
    expect(rows).toMatchObject([
      { host: 'quay.io', credentials: { username: 'a', password: 'b' } },
      { host: 'ghcr.io' },
    ]);
  });

  test('by scripts: its mapping, setup-alias.sh, and docker run', async () => {
    const { aliases, rows, left } = await read({
      'start.sh': `gateway=m.example.com
declare -A mapping=(["gcr.example.com"]="gcr.io" [k8s.example.com]=registry.k8s.io)
for key in \${!mapping[*]}; do
  ./setup-alias.sh "\${key}" "\${mapping[$key]}" "\${gateway}"
done`,
      'more.sh': `GATEWAY=m.example.com\n./setup-alias.sh quay.\${GATEWAY} quay.io \${GATEWAY}\n# ./setup-alias.sh off.example.com off.io\n./setup-alias.sh x.\${UNKNOWN} y.io z\n`,
      'run.sh':
        'docker run -d --name crproxy -p 80:8080 ghcr.io/daocloud/crproxy/crproxy:v0.9.1 \\\n  -u a:b@nvcr.io \\\n  --default-registry docker.io\n',
    });
    expect(aliases).toEqual({
      'gcr.example.com': 'gcr.io',
      'k8s.example.com': 'registry.k8s.io',
      'quay.m.example.com': 'quay.io',
    });
    expect(rows.find(({ host }) => host === 'nvcr.io')?.credentials).toEqual({ username: 'a', password: 'b' });
    expect(left).toEqual([`more.sh: the alias x.\${UNKNOWN} for y.io has a variable whose value is not known`]);
  });

  test('with the nginx and the registry beside it: aliases, its domain, and the layers where they are on this machine', async () => {
    const { aliases, left, notes, storages } = await read({
      'docker-compose.yml': compose(
        '--default-registry docker.io',
        '  registry:\n    image: registry:2\n    volumes:\n      - ./layers:/var/lib/registry:rw\n',
      ),
      'nginx/alias-k8s-gcr.example.com.conf':
        'server { server_name k8s-gcr.example.com; location = /v2/ { return 200 "{}"; } location ~ ^/v2/(.+)$ { return 301 https://m.example.com/v2/k8s.gcr.io/$1; } }',
      'nginx/gateway-m.example.com.conf':
        'server { server_name m.example.com; location /v2/ { proxy_pass http://crproxy:8080; } }',
      'nginx/default.conf': 'server { listen 80; server_name localhost; location / { root /srv; } }',
      'registry/config.yml':
        'version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nproxy: {remoteurl: "http://crproxy:8080"}\n',
    });
    expect(aliases).toEqual({ 'k8s-gcr.example.com': 'k8s.gcr.io' });
    expect(storages).toEqual([
      {
        from: join(dir, 'registry/config.yml'),
        root: join(dir, 'layers'),
        remote: 'http://crproxy:8080',
        hasCredentials: false,
      },
    ]);
    expect(notes.join('\n')).toContain('m.example.com served every registry by its name');
    expect(left).toEqual([]);
  });

  test('what is not understood, or is something else here, is listed', async () => {
    const { left } = await read({
      'docker-compose.yml': compose(
        '--frobnicate 7 --behind --storage-driver oss --allow-image-list-from-file /l -u broken',
        '    environment: [https_proxy=http://u:secret@proxy:8080]\n',
      ),
    });
    expect(left).toEqual([
      'docker-compose.yml (crproxy): --frobnicate was not understood',
      'docker-compose.yml (crproxy): --behind was not taken over',
      'docker-compose.yml (crproxy): --storage-driver was not taken over',
      'docker-compose.yml (crproxy): --allow-image-list-from-file was not taken over',
      'docker-compose.yml (crproxy): --user is not user:password@host',
      'docker-compose.yml (crproxy): it reaches registries through a proxy',
    ]);
    expect(left.join()).not.toContain('secret');
  });

  test('a folder without crproxy, or that is none, is refused in words', async () => {
    await expect(read({ 'notes.txt': 'nothing' })).rejects.toMatchObject({ code: 'IMPORT_NOTHING' });
    await expect(readCrproxy(join(dir, 'none'), {})).rejects.toMatchObject({ code: 'FILE_UNREADABLE' });
    await expect(read({ 'docker-compose.yml': 'services: [' })).rejects.toMatchObject({ code: 'YAML_INVALID' });
  });
});
