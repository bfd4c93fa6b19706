import { inspect } from 'node:util';
import { describe, expect, it, test } from 'vitest';
import { IssuerError } from '../../src/certs/issuer.ts';
import type { Config } from '../../src/config/config.ts';
import { signedBy } from '../../src/dns/alidns.ts';
import { openZones } from '../../src/dns/zones.ts';
import { AlidnsApi, acs3Signature } from '../support/alidns-api.ts';
import { CloudflareApi } from '../support/cloudflare-api.ts';
import type { ApiReply, DnsApi } from '../support/dns-api.ts';
import { dnsServer } from '../support/dns-server.ts';
import { DnspodApi } from '../support/dnspod-api.ts';

const ZONE = 'example.com';
const DELEGATED = 'answers.example.net';
const ZONES = [ZONE, DELEGATED];
const NAME = `_acme-challenge.cr.${ZONE}`;
const signal = AbortSignal.timeout(50_000);
type DnsKeys = Config['acme']['dns'];

const NOTHING = { server: null, algorithm: 'hmac-sha256', keyId: null, secretFile: null, program: null } as const;

function zonesOf(keys: Pick<DnsKeys, 'provider' | 'secret' | 'endpoint'> & Partial<DnsKeys>, resolvers: string[] = []) {
  const zones = openZones({ dns: { ...NOTHING, propagationTimeout: 1_000, ...keys }, resolvers });
  if (zones === null) throw new Error('no provider');
  return zones;
}

/** What each provider has of its own. */
interface Kind {
  readonly name: string;
  readonly open: () => Promise<{ api: DnsApi; keys: Parameters<typeof zonesOf>[0] }>;
  /** Credentials that are wrong, and what is said of them. */
  readonly wrong: readonly (readonly [Partial<DnsKeys>, RegExp])[];
  readonly unknownZone: RegExp;
  readonly limit: ApiReply;
  readonly limited: RegExp;
}

const KINDS: readonly Kind[] = [
  {
    name: 'cloudflare',
    open: async () => {
      const api = await new CloudflareApi(ZONES).start();
      return { api, keys: { provider: 'cloudflare', secret: api.token, endpoint: api.endpoint } };
    },
    wrong: [
      [{ secret: 'unknown_token_0123456789abcdefghijABCDEFGHIJ' }, /answered 403: Invalid access token \(9109\)/],
      [
        { secret: 'of another shape' },
        /answered 400: Invalid request headers \(6003\); Invalid format for Authorization header \(6111\)/,
      ],
    ],
    unknownZone: /the token sees no zone nowhere\.test: it needs Zone\.Zone:Read and Zone\.DNS:Edit/,
    limit: {
      status: 429,
      body: {
        success: false,
        errors: [{ code: 971, message: 'Please wait and consider throttling your request speed' }],
        result: null,
      },
    },
    limited: /answered 429: Please wait and consider throttling your request speed \(971\)/,
  },
  {
    name: 'alidns',
    open: async () => {
      const api = await new AlidnsApi(ZONES).start();
      return { api, keys: { provider: 'alidns', keyId: api.keyId, secret: api.secret, endpoint: api.endpoint } };
    },
    wrong: [
      [{ secret: 'anothers-secret-0123456789' }, /with 400: .*does not match.* \(SignatureDoesNotMatch\)/],
      [{ keyId: 'LTAIunknown' }, /with 404: Specified access key is not found\. \(InvalidAccessKeyId\.NotFound\)/],
    ],
    unknownZone: /\(InvalidDomainName\.NoExist\)/,
    limit: {
      status: 400,
      body: { Code: 'Throttling.User', Message: 'Request was denied due to user flow control.' },
    },
    limited: /with 400: Request was denied due to user flow control\. \(Throttling\.User\)/,
  },
  {
    name: 'dnspod',
    open: async () => {
      const api = await new DnspodApi(ZONES).start();
      return { api, keys: { provider: 'dnspod', keyId: api.tokenId, secret: api.token, endpoint: api.endpoint } };
    },
    wrong: [
      [{ secret: '00000000000000000000000000000000' }, /Record\.List of example\.com: Login failed \(-1\)/],
      [{ keyId: '1' }, /Login failed \(-1\)/],
    ],
    unknownZone: /Record\.List of nowhere\.test: Domain ID error \(6\)/,
    limit: { status: 200, body: { status: { code: '-2', message: 'API usage is limited' } } },
    limited: /API usage is limited \(-2\)/,
  },
];

async function refusal(attempt: Promise<unknown>, secrets: readonly (string | null | undefined)[]): Promise<string> {
  const error = await attempt.then(
    () => null,
    (caught: unknown) => caught,
  );
  if (!(error instanceof IssuerError)) throw new Error(`it was not refused: ${inspect(error)}`);
  expect(error.type).toBe('dnsProvider');
  // With its cause, as a log has it.
  const whole = inspect(error, { depth: 10, showHidden: true });
  for (const secret of secrets) if (secret) expect(whole).not.toContain(secret);
  return error.detail;
}

describe.each(KINDS)('$name', ({ open, wrong, unknownZone, limit, limited }) => {
  const place = { zone: ZONE, name: NAME, via: [NAME] };

  it('adds values side by side, finds them, and removes each alone', async () => {
    const { api, keys } = await open();
    const zones = zonesOf(keys);
    await zones.check(place, signal);
    expect(api.all()).toEqual([]);
    const value = 'LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo';
    for (const given of ['one', value, 'one']) await zones.add({ ...place, value: given }, signal);
    await zones.add({ ...place, name: `other.${ZONE}`, value }, signal);
    expect(api.values(NAME)).toEqual([value, 'one'].toSorted());
    await zones.check(place, signal);
    await zones.remove({ ...place, value: 'one' }, signal);
    await zones.remove({ ...place, value: 'one' }, signal);
    await zones.remove({ ...place, value: 'never there' }, signal);
    expect(api.values(NAME)).toEqual([value]);
    await zones.remove({ ...place, value }, signal);
    expect(api.all().map(({ name }) => name)).toEqual([`other.${ZONE}`]);
    // The zone's own name, as a CNAME may lead to it.
    await zones.add({ zone: ZONE, name: ZONE, value }, signal);
    expect(api.values(ZONE)).toEqual([value]);
    await zones.remove({ zone: ZONE, name: ZONE, value }, signal);
    expect(api.values(ZONE)).toEqual([]);
  });

  it('puts the record of a delegated name into the zone that it leads to', async () => {
    const { api, keys } = await open();
    const target = `gw.${DELEGATED}`;
    const soa = `ns.${DELEGATED}`;
    const server = await dnsServer({ [NAME]: { CNAME: target }, [target]: {}, [DELEGATED]: { SOA: soa } });
    const zones = zonesOf(keys, [server]);
    const found = await zones.find(`cr.${ZONE}`, signal);
    expect(found).toMatchObject({ zone: DELEGATED, name: target });
    await zones.add({ ...found, value: 'v' }, signal);
    expect(api.values(target)).toEqual(['v']);
    expect(api.zones.get(ZONE)).toEqual([]);
    await zones.remove({ ...found, value: 'v' }, signal);
    expect(api.all()).toEqual([]);
  });

  it('says what is refused in its own words and code, and never the secret', async () => {
    const { api, keys } = await open();
    for (const [change, words] of wrong) {
      const given = { ...keys, ...change };
      const zones = zonesOf(given);
      const secrets = [given.secret, keys.secret];
      expect(await refusal(zones.check(place, signal), secrets)).toMatch(words);
      await refusal(zones.add({ ...place, value: 'x' }, signal), secrets);
      await refusal(zones.remove({ ...place, value: 'x' }, signal), secrets);
    }
    const zones = zonesOf(keys);
    expect(await refusal(zones.check({ ...place, zone: 'nowhere.test' }, signal), [keys.secret])).toMatch(unknownZone);
    await refusal(zones.add({ ...place, zone: 'nowhere.test', value: 'x' }, signal), [keys.secret]);
    api.next = limit;
    expect(await refusal(zones.add({ ...place, value: 'x' }, signal), [keys.secret])).toMatch(limited);
    const flood = (field: string, value: unknown) =>
      field.toLowerCase() === 'message' ? `\u001b[2J\n${'no '.repeat(200_000)}` : value;
    api.next = { ...limit, body: JSON.parse(JSON.stringify(limit.body, flood)) };
    const flooded = await refusal(zones.add({ ...place, value: 'x' }, signal), [keys.secret]);
    expect(flooded).toContain('no no no');
    expect([flooded.length <= 600, flooded.includes('\u001b'), flooded.includes('\n')]).toEqual([true, false, false]);
    for (const body of [[], 'text', null, {}]) {
      api.next = { status: 502, body };
      const words = await refusal(zones.add({ ...place, value: 'x' }, signal), [keys.secret]);
      expect(words).toContain('502');
      expect(words).not.toContain('undefined');
    }
    expect(api.all()).toEqual([]);
  });
});

test('cloudflare: a token that may only read is told when it adds; of zones with one name the active one is taken', async () => {
  const api = await new CloudflareApi(ZONES).start();
  api.pending = 2;
  const keys = { provider: 'cloudflare', secret: api.reader, endpoint: api.endpoint } as const;
  const record = { zone: ZONE, name: NAME, value: 'x' };
  expect(await refusal(zonesOf(keys).add(record, signal), [api.reader])).toMatch(/403: Authentication error \(10000\)/);
  await zonesOf({ ...keys, secret: api.token }).add(record, signal);
  expect(api.values(NAME)).toEqual(['x']);
});

test('alidns: the signature is that of the example in the documentation, by both who make it and who check it', () => {
  const headers = {
    host: 'ecs.cn-shanghai.aliyuncs.com',
    'x-acs-action': 'RunInstances',
    'x-acs-content-sha256': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    'x-acs-date': '2023-10-26T10:22:32Z',
    'x-acs-signature-nonce': '3156853299f313e23d1673dc12e1703d',
    'x-acs-version': '2014-05-26',
  };
  const image = ['ImageId', 'win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd'] as const;
  const query = [image, ['RegionId', 'cn-shanghai'] as const];
  const published = '06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0';
  const written = query.map((pair) => pair.join('=')).join('&');
  const made = signedBy('YourAccessKeyId', 'YourAccessKeySecret', { method: 'POST', query: written, headers });
  expect(made).toBe(
    `ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=${Object.keys(headers).join(';')},Signature=${published}`,
  );
  const request = { method: 'POST', path: '/', query, headers: new Map(Object.entries(headers)) };
  const hash = headers['x-acs-content-sha256'];
  expect(acs3Signature({ ...request, hash }, 'YourAccessKeySecret')).toBe(published);
});

test('dnspod: what is added lives as long as its free plan takes at least', async () => {
  const api = await new DnspodApi(ZONES).start();
  const zones = zonesOf({ provider: 'dnspod', keyId: api.tokenId, secret: api.token, endpoint: api.endpoint });
  await zones.add({ zone: ZONE, name: NAME, value: 'x' }, signal);
  expect(api.all()[0]?.ttl).toBeGreaterThanOrEqual(600);
});
