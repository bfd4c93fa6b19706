import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import type { DnsRecord } from '../../src/certs/dns-01.ts';
import type { IssuerError } from '../../src/certs/issuer.ts';
import { Exec } from '../../src/dns/exec.ts';
import { Rfc2136 } from '../../src/dns/rfc2136.ts';
import { ProviderZones } from '../../src/dns/zones.ts';
import { freeAddress, makeKey, type Named, startNamed, type TsigPair } from '../support/named.ts';
import { describeWith } from '../support/programs.ts';

const ZONE = 'gw.test';
const NAME = `_acme-challenge.${ZONE}`;
const record: DnsRecord = { zone: ZONE, name: NAME, value: 'one' };
const signal = AbortSignal.timeout(280_000);

const updater = (named: Named, key: TsigPair, now?: () => number) =>
  new Rfc2136({
    host: named.address,
    port: 53,
    keyName: key.name,
    algorithm: key.algorithm,
    secret: async () => key.secret,
    ...(now === undefined ? {} : { now }),
  });
const zonesAt = (named: Named, key: TsigPair, bound = 60_000) =>
  new ProviderZones({ provider: updater(named, key), resolvers: [named.server], bound });
const failure = (promise: Promise<unknown>): Promise<IssuerError> =>
  promise.then(
    () => {
      throw new Error('it was not refused');
    },
    (error: IssuerError) => error,
  );

describeWith(['named', 'root'], 'dynamic updates', () => {
  it('add values side by side and remove one of them, with each algorithm', async () => {
    const keys = (['hmac-sha256', 'hmac-sha384', 'hmac-sha512'] as const).map((algorithm) =>
      makeKey(`key-${algorithm}`, algorithm),
    );
    const policy = keys.map(({ name }) => `grant ${name} name ${NAME}. TXT;`).join(' ');
    const named = await startNamed({ zones: { [ZONE]: { policy } }, keys });
    for (const key of keys) {
      const provider = updater(named, key);
      await provider.check({ zone: ZONE, name: NAME, via: [NAME] }, signal);
      expect(await named.txt(NAME)).toEqual([]);
      await provider.add(record, signal);
      await provider.add({ ...record, value: 'x'.repeat(300) }, signal);
      await provider.add(record, signal);
      expect((await named.txt(NAME)).toSorted()).toEqual(['one', 'x'.repeat(300)]);
      await provider.remove(record, signal);
      await provider.remove(record, signal);
      expect(await named.txt(NAME)).toEqual(['x'.repeat(300)]);
      await provider.remove({ ...record, value: 'x'.repeat(300) }, signal);
    }
  });

  it('say what is wrong: the secret, the key, its right, the clock, the zone, the server', async () => {
    const key = makeKey('gateway');
    const named = await startNamed({
      zones: { [ZONE]: { policy: `grant gateway name ${NAME}. TXT;` }, 'other.test': {} },
      keys: [key],
    });
    const place = { zone: ZONE, name: NAME, via: [NAME] };
    const tried = [
      [
        () => updater(named, { ...key, secret: makeKey('gateway').secret }).check(place, signal),
        /BADSIG.*the secret is another/,
      ],
      [
        () => updater(named, { ...key, name: 'nobody' }).check(place, signal),
        /BADKEY: it knows no key nobody of hmac-sha256/,
      ],
      [() => updater(named, { ...key, algorithm: 'hmac-sha512' }).check(place, signal), /BADKEY|BADSIG/],
      [
        () => updater(named, key).check({ ...place, name: `elsewhere.${ZONE}` }, signal),
        /elsewhere\.gw\.test.*REFUSED: .*may not change/,
      ],
      [() => updater(named, key, () => Date.now() - 3_600_000).check(place, signal), /BADTIME.*clock/],
      [() => updater(named, key).check({ ...place, zone: 'nowhere.test' }, signal), /NOTAUTH: it is not in charge/],
      [() => updater(named, key).check({ ...place, name: 'a.other.test' }, signal), /NOTZONE/],
      [() => updater({ ...named, address: freeAddress() }, key).check(place, signal), /ECONNREFUSED/],
    ] as const;
    for (const [attempt, words] of tried) {
      const error = await failure(attempt());
      expect(error.type).toBe('dnsProvider');
      expect(error.detail).toMatch(words);
      expect(error.detail).not.toContain(key.secret);
    }
  });
});

describeWith(['named', 'root'], 'the place of a record', () => {
  it('is found through CNAMEs, in the zone that they lead to; loops and zones that are not there are told', async () => {
    const key = makeKey('gateway');
    const named = await startNamed({
      zones: {
        [ZONE]: {
          records: [
            '_acme-challenge CNAME gw.Delegated.test.',
            '_acme-challenge.a CNAME _acme-challenge.b',
            '_acme-challenge.b CNAME _acme-challenge.a',
            '_acme-challenge.far CNAME x.unknown.example.',
          ],
        },
        'delegated.test': { records: ['gw CNAME gw.txt'], policy: 'grant gateway subdomain delegated.test. TXT;' },
      },
      keys: [key],
    });
    const zones = zonesAt(named, key);
    const place = await zones.find(ZONE, signal);
    expect(place).toEqual({
      zone: 'delegated.test',
      name: 'gw.txt.delegated.test',
      via: [NAME, 'gw.delegated.test', 'gw.txt.delegated.test'],
    });
    expect(await zones.find('deep.below.delegated.test', signal)).toMatchObject({ zone: 'delegated.test' });
    const put = { ...place, value: 'v' };
    await zones.add(put, signal);
    expect(await zones.settle(put, signal, () => {})).toEqual([]);
    expect(await named.txt(place.name)).toEqual(['v']);
    const loop = await failure(zones.find(`a.${ZONE}`, signal));
    expect(loop.type).toBe('dnsZone');
    expect(loop.detail).toMatch(/_acme-challenge\.a\.gw\.test → _acme-challenge\.b\.gw\.test → .* are a loop/);
    expect((await failure(zones.find(`far.${ZONE}`, signal))).detail).toMatch(/x\.unknown\.example \(EREFUSED\)/);
  });
});

describeWith(['named', 'root'], 'the servers of a zone', () => {
  /** A zone with a second server, which gets a change when it is told of it, and then alone. */
  async function pair() {
    const key = makeKey('gateway');
    const [first, second] = [freeAddress(), freeAddress()];
    const servers = { ns1: first, ns2: second };
    const primary = await startNamed({
      address: first,
      keys: [key],
      zones: { [ZONE]: { servers, policy: `grant gateway name ${NAME}. TXT;` } },
    });
    const secondary = await startNamed({ address: second, zones: { [ZONE]: { secondaryOf: primary } } });
    await expect.poll(() => secondary.log(), { timeout: 60_000 }).toMatch(/transferred serial 1/);
    return { key, primary, secondary, second };
  }

  it('are waited for until the last one has it', async () => {
    const { key, primary, secondary, second } = await pair();
    const zones = zonesAt(primary, key);
    await zones.add(record, signal);
    const waits: string[] = [];
    const settled = zones.settle(record, signal, (message) => {
      waits.push(message);
      secondary.notify(ZONE);
    });
    expect(await settled).toEqual([]);
    expect(waits).toEqual([
      expect.stringContaining(`ns2.gw.test (${second}) does not have it: waiting, 1 min at most`),
    ]);
    expect(await secondary.txt(NAME)).toEqual(['one']);
  });

  it('are named where one never gets it, and where one does not answer', async () => {
    const { key, primary, secondary, second } = await pair();
    const zones = zonesAt(primary, key, 3_000);
    await zones.add(record, signal);
    const waits: string[] = [];
    const late = await failure(zones.settle(record, signal, (message) => waits.push(message)));
    expect(late.type).toBe('dnsPropagation');
    expect(late.detail).toBe(
      `after 3 s the record at ${NAME} is not everywhere: ns2.gw.test (${second}) does not have it`,
    );
    expect(waits).toEqual([
      `ns2.gw.test (${second}) does not have it: waiting, 3 s at most (acme.dns.propagationTimeout)`,
    ]);
    await secondary.stop();
    expect(await zones.settle(record, signal, () => {})).toEqual([
      expect.stringMatching(/^ns2\.gw\.test \(.*\) gives no answer \(\w+\), and is not waited for$/),
    ]);
  });
});

describeWith(['linux'], 'a program as provider', () => {
  function script(body: string): string {
    const folder = mkdtempSync(join(tmpdir(), 'hook-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const path = join(folder, 'hook');
    writeFileSync(path, `#!/bin/sh\n${body}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  it('is called as lego calls its hooks, with none of our variables', async () => {
    process.env.GATEWAY_ACME_DNS_SECRET = 'hidden';
    onTestFinished(() => {
      delete process.env.GATEWAY_ACME_DNS_SECRET;
    });
    const path = script('printf "%s|" "$0" "$@" >>"$0.calls"; env >>"$0.env"');
    const provider = new Exec(path);
    await provider.check();
    await provider.add({ ...record, value: '-x $(touch /tmp/no) "' }, signal);
    await provider.remove(record, signal);
    expect(readFileSync(`${path}.calls`, 'utf8')).toBe(
      `${path}|present|${NAME}.|-x $(touch /tmp/no) "|${path}|cleanup|${NAME}.|one|`,
    );
    expect(readFileSync(`${path}.env`, 'utf8')).not.toContain('hidden');
  });

  it('is quoted where it fails, and killed with what it started where it hangs', async () => {
    const failed = await failure(new Exec(script('echo chatter; echo "no such zone" >&2; exit 3')).add(record, signal));
    expect(failed.detail).toMatch(/present _acme-challenge\.gw\.test\. ended with exit status 3: no such zone$/);
    const path = script('echo "still at it" >&2; sleep 1000 & echo $! >"$0.pid"; wait');
    const hung = await failure(new Exec(path, 1_500).add(record, signal));
    expect(hung.detail).toMatch(/was not done within 1\.5 s and was killed: still at it$/);
    const pid = Number(readFileSync(`${path}.pid`, 'utf8'));
    await expect.poll(() => isAlive(pid)).toBe(false);
    expect((await failure(new Exec('/nowhere/hook').check())).detail).toMatch(
      /\/nowhere\/hook: it cannot be run: ENOENT/,
    );
    expect((await failure(new Exec('/nowhere/hook').add(record, signal))).detail).toContain('ENOENT');
  });
});

function isAlive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}
