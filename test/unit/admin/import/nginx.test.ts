import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readNginx } from '../../../../src/admin/import/nginx.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'import-nginx-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function read(text: string, others: Record<string, string> = {}) {
  for (const [name, content] of Object.entries(others)) {
    mkdirSync(join(dir, name, '..'), { recursive: true });
    writeFileSync(join(dir, name), content);
  }
  writeFileSync(join(dir, 'nginx.conf'), text);
  const { rows, leftOut, notes } = await readNginx(join(dir, 'nginx.conf'));
  return {
    rows,
    left: leftOut.map(({ what }) => what.replace(`${dir}/`, '')),
    notes: notes.map((note) => note.replace(`${dir}/`, '')),
  };
}

const row = (host: string, endpoints: string[], ...aliases: string[]) => ({
  host,
  endpoints,
  aliases: aliases.map((name) => ({ name, certificate: true })),
});

describe('what nginx passes on', () => {
  test('by proxy_pass, whatever the case and the ends of lines', async () => {
    const { rows, left } = await read(
      '# all of it\r\nserver {\r\n  listen 443 ssl;\r\n  Server_Name k8s-gcr.CR.example.com other.example.com;\r\n  location /v2/ { proxy_pass https://k8s.gcr.io; }\r\n}\r\n',
    );
    expect(rows).toEqual([row('k8s.gcr.io', ['https://k8s.gcr.io'], 'k8s-gcr.cr.example.com', 'other.example.com')]);
    expect(left).toEqual([]);
  });

  test.each([
    ['location / { proxy_pass https://quay.io; }'],
    ['location ~ ^/v2/(.*)$ { proxy_pass https://quay.io/v2/$1$is_args$args; }'],
    ['location ^~ /v2/ { proxy_pass https://quay.io/v2/; }'],
    ['location /v2 { proxy_pass https://quay.io:443; }'],
    ['location /v2/ { set $where quay.io; proxy_pass https://$where; }'],
    ['location /v2/ { set $where https://quay.io; proxy_pass $where$request_uri; }'],
    ['location = /v2/ { return 200 "{}"; } location ~ ^/v2/(.+)$ { return 301 https://cr.example.com/v2/quay.io/$1; }'],
    ['location ~ ^/v2/(.+)$ { rewrite ^/v2/(.*)$ https://cr.example.com/v2/quay.io/$1 permanent; }'],
  ])('in %s', async (location) => {
    const { rows, left } = await read(`http { server { server_name quay.cr.example.com; ${location} } }`);
    expect(rows).toEqual([row('quay.io', ['https://quay.io'], 'quay.cr.example.com')]);
    expect(left).toEqual([]);
  });

  test('through an upstream with several servers, named by the Host that is sent', async () => {
    const { rows } = await read(`
      upstream hub { server registry-1.docker.io:443; server mirror.example.com backup; server 10.0.0.5:5000 max_fails=2; keepalive 8; }
      server { server_name hub.example.com; proxy_set_header Host registry-1.docker.io; location /v2/ { proxy_pass https://hub; } }
    `);
    expect(rows).toEqual([
      row('docker.io', ['https://registry-1.docker.io', 'https://10.0.0.5:5000'], 'hub.example.com'),
    ]);
  });

  test('by a map of hosts', async () => {
    const { rows } = await read(`
      map $host $backend { default 127.0.0.1; hostnames; gcr.cr.example.com gcr.io; "ghcr.cr.example.com" ghcr.io; }
      server { server_name *.cr.example.com; location /v2/ { proxy_pass https://$backend; } }
    `);
    expect(rows).toEqual([
      row('gcr.io', ['https://gcr.io'], 'gcr.cr.example.com'),
      row('ghcr.io', ['https://ghcr.io'], 'ghcr.cr.example.com'),
    ]);
  });

  test('in files that are included, by name and by pattern', async () => {
    const { rows, left } = await read(
      'http { include mime.types; include sites/*.conf; include one.conf; include none/*.conf; include gone.conf; }',
      {
        'sites/a.conf': 'server { server_name a.example.com; location /v2/ { proxy_pass https://quay.io; } }',
        'sites/b.conf': 'server { server_name b.example.com; location /v2/ { proxy_pass https://quay.io; } }',
        'one.conf':
          'server { server_name c.example.com; location /v2/ { proxy_pass http://registry.corp.example:5000; } }',
      },
    );
    expect(rows.flatMap(({ aliases }) => aliases.map(({ name }) => name))).toEqual([
      'a.example.com',
      'b.example.com',
      'c.example.com',
    ]);
    expect(rows.at(-1)).toMatchObject({
      host: 'registry.corp.example:5000',
      endpoints: ['http://registry.corp.example:5000'],
    });
    expect(left).toEqual([expect.stringMatching(/^nginx\.conf:1: include gone\.conf cannot be read/)]);
  });

  test('with credentials that it shows in everybody’s name', async () => {
    const basic = Buffer.from('bot:se:cret').toString('base64');
    const { rows } = await read(
      `server { server_name q.example.com; location /v2/ { proxy_set_header Authorization "Basic ${basic}"; proxy_pass https://quay.io; } }`,
    );
    expect(rows).toEqual([
      {
        ...row('quay.io', ['https://quay.io'], 'q.example.com'),
        credentials: { username: 'bot', password: 'se:cret' },
        public: true,
      },
    ]);
  });

  test('below its domain, by the registry’s name', async () => {
    const { rows } = await read(
      'server { server_name cr.example.com; location /v2/quay.io/ { proxy_pass https://quay.io/v2/; } }',
    );
    expect(rows).toEqual([row('quay.io', ['https://quay.io'])]);
  });
});

describe('what is not understood is listed, with its place', () => {
  const quay = 'location /v2/ { proxy_pass https://quay.io; }';

  test.each([
    ['a directive', `frobnicate on; ${quay}`, /nginx\.conf:1: frobnicate on was not understood/],
    [
      'a directive of a location',
      `location /v2/ { lua_code "x { y }"; proxy_pass https://quay.io; }`,
      /lua_code x \{ y \} was not understood/,
    ],
    ['logins', `auth_basic "r"; auth_basic_user_file f; ${quay}`, /auth_basic r \(.*\) was not taken over/],
    ['networks', `allow 10.0.0.0/8; deny all; ${quay}`, /allow 10\.0\.0\.0\/8 .* was not taken over/],
    ['a limit', `limit_req zone=a burst=5; ${quay}`, /limit_req zone=a burst=5 .* was not taken over/],
    [
      'an address of a container’s network',
      'location /v2/ { proxy_pass http://registry:5000; }',
      /passes on to http:\/\/registry:5000, which is no name that images can have/,
    ],
    [
      'a variable without a value',
      'location /v2/ { proxy_pass https://$unknown; }',
      /passes on to \$?https:\/\/\$unknown, which was not understood|passes on to https:\/\/\$unknown/,
    ],
    [
      'a token',
      'location /v2/ { proxy_set_header Authorization "Bearer x"; proxy_pass https://quay.io; }',
      /Authorization that is no user name/,
    ],
  ])('%s', async (_, inside, reason) => {
    const { left } = await read(`server { server_name q.example.com; ${inside} }`);
    expect(left.join('\n')).toMatch(reason);
  });

  test.each([
    ['a wildcard', '*.example.com'],
    ['a regular expression', '"~^(?<name>.+)\\.example\\.com$"'],
    ['no name', '_'],
  ])('%s as the name of a server', async (_, name) => {
    const { rows, left } = await read(`server { server_name ${name}; ${quay} }`);
    expect(rows).toEqual([row('quay.io', ['https://quay.io'])]);
    expect(left.join('\n')).toMatch(/is no name that an alias can have/);
  });

  test.each([
    ['a block without an end', `server { server_name q.example.com; ${quay}`, /a block has no end/],
    ['an end without a block', `} server { server_name q.example.com; ${quay} }`, /a block ends that did not begin/],
    ['a missing semicolon', `server { server_name q.example.com; ${quay} } listen`, /"listen" has no semicolon/],
    ['an include of itself', `include nginx.conf; server { server_name q.example.com; ${quay} }`, /leads in a circle/],
  ])('%s, and the rest is read', async (_, text, reason) => {
    const { rows, left } = await read(text);
    expect(rows[0]).toMatchObject({ host: 'quay.io' });
    expect(left.join('\n')).toMatch(reason);
  });

  test('servers of something else are passed over, and a file without any registry is refused', async () => {
    const site = 'server { server_name www.example.com; location / { root /srv; } }';
    const { notes } = await read(`${site} server { server_name q.example.com; ${quay} }`);
    expect(notes).toEqual([expect.stringMatching(/^nginx\.conf:1: the server www\.example\.com passes no pulls on/)]);
    await expect(read(site)).rejects.toMatchObject({ code: 'IMPORT_NOTHING' });
    await expect(readNginx(join(dir, 'none.conf'))).rejects.toMatchObject({ code: 'FILE_UNREADABLE' });
  });
});

test('an include of what is no file is left, and the rest is read', async () => {
  const { rows, left } = await read(
    'include /dev/zero;\nserver { server_name q.example.com; location /v2/ { proxy_pass https://quay.io; } }\n',
  );
  expect(rows).toEqual([row('quay.io', ['https://quay.io'], 'q.example.com')]);
  expect(left).toEqual([expect.stringContaining('include /dev/zero cannot be read')]);
});
