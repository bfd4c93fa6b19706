import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type LoadOptions, loadConfig } from '../../../src/config/load.ts';
import { ENVIRONMENT } from '../../../src/config/settings.ts';
import { refusal } from '../../support/refusal.ts';
import { makeTestCa } from '../../support/test-ca.ts';

let cwd: string;
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'gateway-config-'));
});
afterEach(() => rmSync(cwd, { recursive: true, force: true }));

const load = (options: Partial<LoadOptions> = {}) =>
  loadConfig({ env: {}, cwd, cores: 3, terminal: false, ...options });

function write(text: string, name = 'gateway.yaml'): string {
  writeFileSync(join(cwd, name), text);
  return name;
}

describe('defaults', () => {
  test('of a gateway that nobody configured', () => {
    expect(load()).toEqual({
      warnings: [],
      source: { file: null, environment: [] },
      originOf: expect.any(Function),
      config: {
        domain: 'localhost',
        publicUrl: null,
        publicDomain: false,
        dataDir: join(cwd, 'data'),
        listen: { https: { host: '127.0.0.1', port: 8443 }, http: { host: '127.0.0.1', port: 8080 }, workers: 3 },
        tls: { mode: 'internal' },
        trustedProxies: [],
        acme: {
          email: null,
          issuers: [
            {
              directory: 'https://acme-v02.api.letsencrypt.org/directory',
              caFile: null,
              eab: null,
              profile: null,
            },
          ],
          challenges: ['http-01', 'tls-alpn-01'],
          dns: {
            provider: null,
            server: null,
            algorithm: 'hmac-sha256',
            keyId: null,
            secret: null,
            secretFile: null,
            program: null,
            endpoint: null,
            propagationTimeout: 120_000,
          },
          wildcard: false,
          selfCheck: true,
          resolvers: [],
        },
        cache: {
          maxSize: 20 * 2 ** 30,
          minFree: 2 ** 30,
          tagTtl: 60_000,
          staleFor: 7 * 86_400_000,
          scrub: 30 * 86_400_000,
          prefetch: 'off',
          s3: {
            bucket: null,
            prefix: null,
            region: null,
            endpoint: null,
            pathStyle: false,
            maxSize: null,
            redirect: false,
          },
        },
        upstream: { proxy: null, caFile: null, stallTimeout: 20_000, connections: 16 },
        database: null,
        databasePasswordFile: null,
        secretFile: null,
        cluster: { listen: null, address: null },
        access: { anonymous: null, allow: [], deny: [] },
        limits: {
          requestsPerMinute: null,
          bytesPerDay: null,
          bytesPerMonth: null,
          connections: 1024,
          minRate: 1024,
        },
        policy: { images: [], cooldown: null, cooldownImages: [] },
        metrics: { listen: { host: '127.0.0.1', port: 9464 } },
        log: { level: 'info', format: 'json' },
      },
    });
  });

  test('of a public domain', () => {
    const { config } = load({ env: { GATEWAY_DOMAIN: 'cr.example.com' }, terminal: true });
    expect(config).toMatchObject({
      publicDomain: true,
      listen: { https: { host: undefined, port: 443 }, http: { host: undefined, port: 80 } },
      tls: { mode: 'acme' },
      log: { format: 'pretty' },
    });
  });

  test('with tls.mode off, https is off', () => {
    const { config, warnings } = load({ env: { GATEWAY_TLS_MODE: 'off' } });
    expect(config.listen).toMatchObject({ https: null, http: { port: 8080 } });
    expect(warnings).toEqual([]);
  });
});

test('every key can be set in the file', () => {
  write(makeTestCa().pem, 'ca.pem');
  write(`
domain: cr.example.com
publicUrl: https://pull.example.com:9443/
dataDir: state
trustedProxies: [10.0.0.0/8]
listen: {https: "[::1]:0", http: off, workers: auto}
tls: {mode: acme}
acme:
  email: ops@example.com
  issuers:
    - directory: https://one.example/dir
      caFile: ca.pem
      eab: {keyId: kid, hmacKey: abc_-}
      profile: shortlived
    - directory: https://two.example/dir
  challenges: [tls-alpn-01, dns-01]
  dns: {provider: rfc2136, server: ns1.example.com, algorithm: hmac-sha512, keyId: gw., secret: c2VjcmV0, propagationTimeout: 1m}
  wildcard: true
  selfCheck: false
  resolvers: [127.0.0.1:8053]
cache: {maxSize: 0, minFree: 10MiB, tagTtl: 0, staleFor: 1h, scrub: off, prefetch: manifest, s3: {bucket: shared, prefix: gw/, region: eu-1, endpoint: "https://s3.example:9000", pathStyle: true, maxSize: 1TiB, redirect: all}}
upstream: {proxy: "socks5h://u:p@127.0.0.1:1080", caFile: ca.pem, stallTimeout: 500ms, connections: 1}
database: postgres://gateway@db.example/gateway?sslmode=verify-full
secretFile: keys
cluster: {listen: "10.0.0.5:7443", address: "gw1.internal:7443"}
access: {anonymous: true, allow: [10.0.0.0/8], deny: [10.1.0.0/16]}
limits: {requestsPerMinute: 60, bytesPerDay: 1GiB, bytesPerMonth: 1TiB, connections: 64, minRate: 4KiB}
policy:
  images: [docker.io/library/*, '!*/*:latest', {image: '*', users: [ci], networks: [10.0.0.0/8]}]
  cooldown: 3d
  cooldownImages: ['!*@*']
metrics: {listen: off}
log: {level: debug, format: pretty}
`);
  expect(load()).toEqual({
    warnings: [],
    source: { file: join(cwd, 'gateway.yaml'), environment: [] },
    originOf: expect.any(Function),
    config: {
      domain: 'cr.example.com',
      publicUrl: 'https://pull.example.com:9443',
      publicDomain: true,
      dataDir: join(cwd, 'state'),
      listen: { https: { host: '::1', port: 0 }, http: null, workers: 3 },
      tls: { mode: 'acme' },
      trustedProxies: ['10.0.0.0/8'],
      acme: {
        email: 'ops@example.com',
        issuers: [
          {
            directory: 'https://one.example/dir',
            caFile: join(cwd, 'ca.pem'),
            eab: { keyId: 'kid', hmacKey: 'abc_-' },
            profile: 'shortlived',
          },
          { directory: 'https://two.example/dir', caFile: null, eab: null, profile: null },
        ],
        challenges: ['tls-alpn-01', 'dns-01'],
        dns: {
          provider: 'rfc2136',
          server: 'ns1.example.com:53',
          algorithm: 'hmac-sha512',
          keyId: 'gw.',
          secret: 'c2VjcmV0',
          secretFile: null,
          program: null,
          endpoint: null,
          propagationTimeout: 60_000,
        },
        wildcard: true,
        selfCheck: false,
        resolvers: ['127.0.0.1:8053'],
      },
      cache: {
        maxSize: 0,
        minFree: 10 * 2 ** 20,
        tagTtl: 0,
        staleFor: 3_600_000,
        scrub: null,
        prefetch: 'manifest',
        s3: {
          bucket: 'shared',
          prefix: 'gw/',
          region: 'eu-1',
          endpoint: 'https://s3.example:9000',
          pathStyle: true,
          maxSize: 2 ** 40,
          redirect: 'all',
        },
      },
      upstream: {
        proxy: 'socks5h://u:p@127.0.0.1:1080',
        caFile: join(cwd, 'ca.pem'),
        stallTimeout: 500,
        connections: 1,
      },
      database: 'postgres://gateway@db.example/gateway?sslmode=verify-full',
      databasePasswordFile: null,
      secretFile: join(cwd, 'keys'),
      cluster: { listen: { host: '10.0.0.5', port: 7443 }, address: 'gw1.internal:7443' },
      access: { anonymous: true, allow: ['10.0.0.0/8'], deny: ['10.1.0.0/16'] },
      limits: { requestsPerMinute: 60, bytesPerDay: 2 ** 30, bytesPerMonth: 2 ** 40, connections: 64, minRate: 4096 },
      policy: {
        images: [
          { pattern: 'docker.io/library/*', allows: true, users: [], networks: [] },
          { pattern: '*/*:latest', allows: false, users: [], networks: [] },
          { pattern: '*', allows: true, users: ['ci'], networks: ['10.0.0.0/8'] },
        ],
        cooldown: 3 * 86_400_000,
        cooldownImages: [{ pattern: '*@*', allows: false, users: [], networks: [] }],
      },
      metrics: { listen: null },
      log: { level: 'debug', format: 'pretty' },
    },
  });
});

test('every key has its variable', () => {
  expect([...ENVIRONMENT.keys()].sort()).toEqual(
    [
      ...[
        'DOMAIN',
        'PUBLIC_URL',
        'DATA_DIR',
        'TRUSTED_PROXIES',
        'TLS_MODE',
        'METRICS_LISTEN',
        'LOG_LEVEL',
        'LOG_FORMAT',
      ],
      ...['LISTEN_HTTPS', 'LISTEN_HTTP', 'LISTEN_WORKERS'],
      ...['ACME_EMAIL', 'ACME_DIRECTORY', 'ACME_CA_FILE', 'ACME_CHALLENGES', 'ACME_SELF_CHECK', 'ACME_RESOLVERS'],
      ...['PROVIDER', 'SERVER', 'ALGORITHM', 'KEY_ID', 'SECRET', 'SECRET_FILE', 'PROGRAM', 'ENDPOINT'].map(
        (key) => `ACME_DNS_${key}`,
      ),
      ...['ACME_DNS_PROPAGATION_TIMEOUT', 'ACME_WILDCARD'],
      ...['CACHE_MAX_SIZE', 'CACHE_MIN_FREE', 'CACHE_TAG_TTL', 'CACHE_STALE_FOR', 'CACHE_SCRUB', 'CACHE_PREFETCH'],
      ...['BUCKET', 'PREFIX', 'REGION', 'ENDPOINT', 'PATH_STYLE', 'MAX_SIZE', 'REDIRECT'].map(
        (name) => `CACHE_S3_${name}`,
      ),
      ...['UPSTREAM_CA_FILE', 'UPSTREAM_PROXY', 'UPSTREAM_STALL_TIMEOUT', 'UPSTREAM_CONNECTIONS'],
      ...['DATABASE', 'SECRET_FILE', 'CLUSTER_LISTEN', 'CLUSTER_ADDRESS'],
      ...['ACCESS_ANONYMOUS', 'ACCESS_ALLOW', 'ACCESS_DENY'],
      ...[
        'LIMITS_REQUESTS_PER_MINUTE',
        'LIMITS_BYTES_PER_DAY',
        'LIMITS_BYTES_PER_MONTH',
        'LIMITS_CONNECTIONS',
        'LIMITS_MIN_RATE',
      ],
      ...['POLICY_IMAGES', 'POLICY_COOLDOWN', 'POLICY_COOLDOWN_IMAGES'],
    ]
      .map((name) => `GATEWAY_${name}`)
      .sort(),
  );
});

describe('precedence', () => {
  test('the command line over the environment over the file', () => {
    write('dataDir: from-file\ncache: {maxSize: 1MiB, minFree: 2MiB}\n');
    const env = { GATEWAY_DATA_DIR: 'from-env', GATEWAY_CACHE_MAX_SIZE: '3MiB' };
    const { config, source } = load({ env });
    expect(config.dataDir).toBe(join(cwd, 'from-env'));
    expect(config.cache).toMatchObject({ maxSize: 3 * 2 ** 20, minFree: 2 * 2 ** 20 });
    expect(source.environment).toEqual(['GATEWAY_DATA_DIR', 'GATEWAY_CACHE_MAX_SIZE']);
    expect(load({ env, dataDir: 'from-line' }).config.dataDir).toBe(join(cwd, 'from-line'));
  });

  test('--config over GATEWAY_CONFIG over gateway.yaml', () => {
    write('domain: usual.example\n');
    write('domain: env.example\n', 'env.yaml');
    write('domain: line.example\n', 'line.yaml');
    expect(load().config.domain).toBe('usual.example');
    expect(load({ env: { GATEWAY_CONFIG: 'env.yaml' } }).config.domain).toBe('env.example');
    expect(load({ file: 'line.yaml', env: { GATEWAY_CONFIG: 'env.yaml' } }).config.domain).toBe('line.example');
    expect(load().warnings).toEqual([]);
  });

  test('the environment changes the first issuer and leaves the others', () => {
    write('acme: {issuers: [{directory: https://a.example/d, profile: p}, {directory: https://b.example/d}]}\n');
    write(makeTestCa().pem, 'ca.pem');
    const env = { GATEWAY_ACME_DIRECTORY: 'https://c.example/d', GATEWAY_ACME_CA_FILE: 'ca.pem' };
    expect(load({ env }).config.acme.issuers).toEqual([
      { directory: 'https://c.example/d', caFile: join(cwd, 'ca.pem'), eab: null, profile: 'p' },
      { directory: 'https://b.example/d', caFile: null, eab: null, profile: null },
    ]);
    rmSync(join(cwd, 'gateway.yaml'));
    expect(load({ env }).config.acme.issuers).toHaveLength(1);
  });

  test('how many connections may fetch a blob is a number, or as many as help', () => {
    write('upstream: {connections: 1}\n');
    expect(load().config.upstream.connections).toBe(1);
    expect(load({ env: { GATEWAY_UPSTREAM_CONNECTIONS: 'auto' } }).config.upstream.connections).toBe(16);
    expect(load({ env: { GATEWAY_UPSTREAM_CONNECTIONS: '32' } }).config.upstream.connections).toBe(32);
  });

  test('an empty variable, and a key with nothing after it, count as not set', () => {
    write('acme:\ncache:\n  maxSize:\n');
    expect(load({ env: { GATEWAY_DOMAIN: '' } }).config).toMatchObject({
      domain: 'localhost',
      cache: { maxSize: 20 * 2 ** 30 },
    });
  });

  test('an empty file is fine', () => {
    write('# nothing\n');
    expect(load().config.domain).toBe('localhost');
  });
});

describe('access.anonymous', () => {
  const anonymous = (value: string) => {
    write(`access: {anonymous: ${value}}`);
    return load().config.access.anonymous;
  };

  test.each([
    ['true', true],
    ['off', false],
    ['10.0.0.0/8', ['10.0.0.0/8']],
    ['[10.0.0.0/8, "2001:DB8::1", 192.0.2.7]', ['10.0.0.0/8', '2001:db8::1/128', '192.0.2.7/32']],
  ])('%s in the file', (written, expected) => {
    expect(anonymous(written)).toEqual(expected);
  });

  test('with commas in the environment', () => {
    const env = { GATEWAY_ACCESS_ANONYMOUS: '10.0.0.0/8, ::1' };
    expect(load({ env }).config.access.anonymous).toEqual(['10.0.0.0/8', '::1/128']);
  });

  test.each([
    ['[10.0.0.0/8, 10.0.0.0/40]', 'access.anonymous: "10.0.0.0/40" is not a network'],
    ['[true, 10.0.0.0/8]', 'access.anonymous: is true; it must be a network'],
    ['maybe', 'access.anonymous: "maybe" is not a network'],
    ['[]', 'access.anonymous: must not be empty or 0; write true, false or networks'],
    ['{a: 1}', 'access.anonymous: is a mapping; it must be true, false or a list of networks'],
  ])('%s is refused', (written, message) => {
    expect(refusal(() => anonymous(written)).message).toContain(message);
  });
});

describe('problems', () => {
  test('are all reported, each with its key and its place', () => {
    write(`domain: a_b.example
listn: {}
listen:
  https: 443
cache:
  tagttl: 1m
acme:
  issuers:
    - caFile: nowhere.pem
    - eab: {keyId: a}
access:
  allow: [10.0.0.0/8, nonsense]
upstream: 5
`);
    const { message, usage, code } = refusal(() =>
      load({ env: { GATEWAY_CACHE_MAX_SIZE: '20GB', GATEWAY_TLS_MODE: 'on' } }),
    );
    expect({ usage, code }).toEqual({ usage: true, code: 'CONFIG_INVALID' });
    const file = join(cwd, 'gateway.yaml');
    for (const [key, place] of [
      ['domain', `${file}:1`],
      ['listn', `${file}:2`],
      ['listen.https', `${file}:4`],
      ['cache.tagttl', `${file}:6`],
      ['acme.issuers[0].caFile', `${file}:9`],
      ['acme.issuers[1].directory', `${file}:10`],
      ['acme.issuers[1].eab.hmacKey', `${file}:10`],
      ['access.allow', `${file}:12`],
      ['upstream', `${file}:13`],
      ['cache.maxSize', 'GATEWAY_CACHE_MAX_SIZE'],
      ['tls.mode', 'GATEWAY_TLS_MODE'],
    ] as const) {
      const line = message.split('\n').find((one) => one.startsWith(`  ${key}: `));
      expect(line, `a line for ${key}`).toBeDefined();
      expect(line).toContain(`(${place})`);
    }
    expect(message).toContain('has 11 problems');
    expect(message).toContain('did you mean listen?');
    expect(message).toContain('did you mean tagTtl?');
  });

  test.each([
    ['listen: {https: off}', 'listen.https: is off'],
    ['{tls: {mode: off}, listen: {http: off}}', 'listen.http: is off while tls.mode is off'],
    ['listen: {https: ":8443", http: ":8443"}', 'listen.http: is the same address'],
    ['limits: {bytesPerDay: 0}', 'limits.bytesPerDay: must not be empty or 0'],
    ['acme: {challenges: []}', 'acme.challenges: must not be empty'],
    ['acme: {issuers: {}}', 'acme.issuers: is not a list'],
    ['acme: {issuers: [x]}', 'acme.issuers[0]: must be a mapping'],
    ['upstream: {connections: 33}', 'upstream.connections: "33" is not a whole number from 1 to 32; or write auto'],
    ['listen: {workers: [a]}', '; or write auto'],
    ['[a]', 'is not a mapping'],
    ['domain: [a]', 'domain: '],
    ['cache: {maxSize: {a: 1}}', 'cache.maxSize: is a mapping'],
  ])('%s: %s', (text, expected) => {
    write(`${text}\n`);
    expect(refusal(() => load()).message).toContain(expected);
  });

  test('a syntax error has its line', () => {
    write('listen:\n  https: [::1]:8443\n');
    expect(refusal(() => load())).toMatchObject({ usage: true, message: expect.stringContaining('gateway.yaml:2: ') });
  });

  test('a file that was named must be there', () => {
    expect(refusal(() => load({ file: 'no.yaml' }))).toMatchObject({ usage: true });
    expect(refusal(() => load({ env: { GATEWAY_CONFIG: 'no.yaml' } })).message).toContain('no.yaml');
  });

  test('no secret is repeated', () => {
    write(`upstream: {proxy: "ftp://u:hunter2@p"}
acme: {issuers: [{eab: {keyId: k, hmacKey: "hunter2 !"}}]}
`);
    const { message } = refusal(() => load());
    expect(message).toContain('upstream.proxy');
    expect(message).toContain('acme.issuers[0].eab.hmacKey');
    expect(message).not.toContain('hunter2');
  });
});

describe('warnings', () => {
  test('name variables that are no settings', () => {
    const { warnings } = load({ env: { GATEWAY_CACHE_MAXSIZE: '1', GATEWAY_XYZZYPLUGH: '', OTHER: 'x' } });
    expect(warnings).toHaveLength(2);
    expect(warnings[0]).toMatch(/GATEWAY_CACHE_MAXSIZE.*did you mean GATEWAY_CACHE_MAX_SIZE\?/);
    expect(warnings[1]).toContain('GATEWAY_XYZZYPLUGH');
  });

  test('are told with the problems where there are any', () => {
    const { message } = refusal(() => load({ env: { GATEWAY_CACHE_SIZE: '1', GATEWAY_TLS_MODE: 'on' } }));
    expect(message).toMatch(/has a problem:\n {2}tls\.mode: .*\n {2}GATEWAY_CACHE_SIZE is no setting/);
  });

  test('say what is allowed and hardly meant', () => {
    expect(load({ env: { GATEWAY_TLS_MODE: 'off', GATEWAY_LISTEN_HTTPS: ':443' } }).warnings[0]).toContain('not used');
    expect(
      load({
        env: { GATEWAY_TLS_MODE: 'acme', GATEWAY_LISTEN_HTTP: 'off', GATEWAY_ACME_CHALLENGES: 'http-01' },
      }).warnings.join(),
    ).toContain('no certificate can be issued');
  });
});
