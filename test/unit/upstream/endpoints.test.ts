import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { silentLog } from '../../../src/telemetry/log.ts';
import { Endpoints, tryEndpoints } from '../../../src/upstream/endpoints.ts';
import { ConnectError, StatusError, TokenRefusedError } from '../../../src/upstream/failures.ts';
import type { Route } from '../../../src/upstream/upstream.ts';
import { verdict } from '../../../src/upstream/verdict.ts';

const signal = new AbortController().signal;
const REFUSED = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
const TIMED_OUT = Object.assign(new Error('no connection'), { code: 'ETIMEDOUT' });
const [FIRST, SECOND] = [new URL('https://first.test'), new URL('https://second.test')];

function route(...endpoints: URL[]): Route {
  const urls = (endpoints.length === 0 ? [FIRST] : endpoints).map(({ href }) => href);
  return { host: 'r.test', endpoints: urls, proxy: null, credentials: null, realms: [], named: [], ca: null };
}

function refused(endpoint = FIRST): ConnectError {
  return new ConnectError(endpoint.host, 'endpoint', REFUSED);
}

/** Attempts to connect that the test decides. */
function bed() {
  const attempts: { endpoint: URL; settle: (error: Error | null) => void }[] = [];
  const endpoints = new Endpoints({
    connect: (endpoint) =>
      new Promise((resolve, reject) => {
        attempts.push({ endpoint, settle: (error) => (error === null ? resolve() : reject(error)) });
      }),
    random: () => 0.5,
  });
  const open = (where = route(), endpoint = FIRST): void => {
    for (let i = 0; i < 3; i++) endpoints.failed(where, endpoint, 'app', refused(endpoint));
  };
  return { endpoints, attempts, open };
}

describe('an endpoint', () => {
  it('is out of reach after three failures to connect, or one that took its whole time', () => {
    const { endpoints } = bed();
    for (let i = 0; i < 2; i++) endpoints.failed(route(), FIRST, 'app', refused());
    expect(endpoints.areOutOfReach(route())).toBe(false);
    endpoints.failed(route(), FIRST, 'app', refused());
    expect(endpoints.areOutOfReach(route())).toBe(true);
    const slow = bed().endpoints;
    slow.failed(route(), FIRST, 'app', new ConnectError(FIRST.host, 'endpoint', TIMED_OUT));
    expect(slow.areOutOfReach(route())).toBe(true);
  });

  it.each([
    ['a 500', new StatusError(500, FIRST.host)],
    ['a headers timeout', Object.assign(new Error('x'), { code: 'UND_ERR_HEADERS_TIMEOUT' })],
    ['a broken connection', Object.assign(new Error('x'), { code: 'UND_ERR_SOCKET' })],
    ['a 429', new StatusError(429, FIRST.host, 60)],
    ['a realm out of reach', new ConnectError('auth.test', 'realm', REFUSED)],
    ["a redirect's target out of reach", new ConnectError('cdn.test', 'target', TIMED_OUT)],
  ])('is never out of reach for %s', (_, error) => {
    const { endpoints } = bed();
    for (let i = 0; i < 20; i++) endpoints.failed(route(), FIRST, 'app', error);
    expect(endpoints.areOutOfReach(route())).toBe(false);
    expect(endpoints.health(route())[0]).toMatchObject({ state: 'closed', failures: 0, retryAt: null });
  });

  it('is well, partly well, down or unknown, as those who pull are told', () => {
    const now = vi.spyOn(performance, 'now').mockReturnValue(1_000_000);
    onTestFinished(() => now.mockRestore());
    const { endpoints, open } = bed();
    expect(endpoints.wellbeing(route())).toBe('unknown');
    endpoints.succeeded(route(), FIRST, 'app');
    expect(endpoints.wellbeing(route())).toBe('well');
    endpoints.failed(route(), FIRST, 'app', new StatusError(404, FIRST.host));
    expect(endpoints.wellbeing(route())).toBe('well');
    endpoints.failed(route(), FIRST, 'app', new StatusError(500, FIRST.host));
    expect(endpoints.wellbeing(route())).toBe('partly');
    for (const name of ['b', 'c']) endpoints.failed(route(), FIRST, name, new StatusError(500, FIRST.host));
    expect(endpoints.wellbeing(route())).toBe('down');
    expect(endpoints.wellbeing(route(FIRST, SECOND))).toBe('partly');
    endpoints.succeeded(route(), FIRST, 'app');
    open();
    expect(endpoints.wellbeing(route())).toBe('down');
    now.mockReturnValue(1_000_000 + 3_600_000);
    expect(endpoints.wellbeing(route())).toBe('unknown');
  });

  it('that is out of reach is tried once for all who ask meanwhile, and they go on when it is well', async () => {
    const { endpoints, attempts, open } = bed();
    open();
    const asked = Array.from({ length: 10 }, () => endpoints.admit(route(), FIRST, signal));
    expect(attempts).toHaveLength(1);
    expect(endpoints.health(route())[0]?.state).toBe('half-open');
    attempts[0]?.settle(null);
    await Promise.all(asked);
    expect(endpoints.areOutOfReach(route())).toBe(false);
    await endpoints.admit(route(), FIRST, signal);
    expect(attempts).toHaveLength(1);
  });

  it('that is still out of reach fails those who waited for the attempt; the next one makes another', async () => {
    const { endpoints, attempts, open } = bed();
    open();
    const asked = [1, 2].map(() => endpoints.admit(route(), FIRST, signal));
    attempts[0]?.settle(refused());
    for (const one of asked) await expect(one).rejects.toThrow('it refuses connections');
    const next = endpoints.admit(route(), FIRST, signal);
    attempts[1]?.settle(null);
    await next;
  });

  it('ends the wait of who leaves, not the attempt', async () => {
    const { endpoints, attempts, open } = bed();
    open();
    const leaving = new AbortController();
    const left = endpoints.admit(route(), FIRST, leaving.signal);
    const stays = endpoints.admit(route(), FIRST, signal);
    leaving.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    attempts[0]?.settle(null);
    await stays;
  });
});

describe('the order of endpoints', () => {
  const both = route(FIRST, SECOND);
  const order = (endpoints: Endpoints, repository: string) =>
    endpoints.candidates(both, repository).map(({ host }) => host);

  it("is the operator's, but for the repository that fails at one", () => {
    const { endpoints } = bed();
    endpoints.failed(both, FIRST, 'bad', new StatusError(500, FIRST.host));
    expect(order(endpoints, 'bad')).toEqual(['second.test', 'first.test']);
    expect(order(endpoints, 'app')).toEqual(['first.test', 'second.test']);
    endpoints.succeeded(both, FIRST, 'bad');
    expect(order(endpoints, 'bad')).toEqual(['first.test', 'second.test']);
  });

  it('is another one for all where one repository after the other fails, until one does not', () => {
    const { endpoints } = bed();
    for (const repository of ['a', 'b', 'c'])
      endpoints.failed(both, FIRST, repository, new StatusError(500, FIRST.host));
    expect(order(endpoints, 'app')).toEqual(['second.test', 'first.test']);
    endpoints.succeeded(both, FIRST, 'd');
    expect(order(endpoints, 'app')).toEqual(['first.test', 'second.test']);
  });

  it('lets one request try what has failed, when its time has come', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      const { endpoints } = bed();
      endpoints.failed(both, FIRST, 'app', new StatusError(500, FIRST.host));
      vi.advanceTimersByTime(1_001);
      expect(order(endpoints, 'app')[0]).toBe('first.test');
      expect(order(endpoints, 'app')[0]).toBe('second.test');
    } finally {
      vi.useRealTimers();
    }
  });

  it('has what is out of reach at the end, and tries by itself whether it still is', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      const { endpoints, attempts, open } = bed();
      open(both);
      expect(order(endpoints, 'app')).toEqual(['second.test', 'first.test']);
      expect(attempts).toHaveLength(0);
      vi.advanceTimersByTime(10_000);
      expect(order(endpoints, 'app')).toEqual(['second.test', 'first.test']);
      expect(attempts).toHaveLength(1);
      attempts[0]?.settle(null);
      await vi.waitFor(() => expect(order(endpoints, 'app')).toEqual(['first.test', 'second.test']));
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('the verdict', () => {
  const miss = (host = FIRST.host) => new StatusError(404, host);
  const denial = (status: 401 | 403) => new StatusError(status, FIRST.host);

  it('is a miss only where every endpoint answered so', () => {
    expect(verdict([miss(), miss()])).toMatchObject({ status: 404 });
    for (const other of [refused(), TIMED_OUT, new StatusError(500, 'x'), new StatusError(429, 'x', 5)]) {
      expect(verdict([other, miss()])).toBe(other);
      expect(verdict([miss(), other])).toBe(other);
    }
  });

  it('is a denial that counts only where every endpoint, or its token endpoint, denied by itself', () => {
    expect(verdict([denial(401), denial(403)])).toMatchObject({ status: 401, denied: true });
    expect(verdict([new TokenRefusedError(403, 'auth.test')])).toMatchObject({ status: 403, denied: true });
    expect(verdict([denial(403), miss()])).toMatchObject({ status: 403, denied: false });
    expect(verdict([new TokenRefusedError(403, 'auth.test', 'target')])).toMatchObject({ denied: false });
    const byTarget = denial(403);
    byTarget.where = 'target';
    expect(verdict([byTarget])).toMatchObject({ status: 403, denied: false });
    expect(verdict([denial(403), refused()])).toBeInstanceOf(ConnectError);
  });

  it('leaves the refusal of a token as it is for others who wait for it', () => {
    const shared = new TokenRefusedError(401, 'auth.test');
    verdict([shared]);
    expect(shared.denied).toBe(false);
  });
});

describe('failing over', () => {
  const both = route(FIRST, SECOND);

  it('asks again in further rounds only those whose answer may change', async () => {
    const { endpoints } = bed();
    const asked: string[] = [];
    const options = { route: both, repository: 'app', endpoints, log: silentLog(), signal, waits: [0, 0] };
    const outcome = tryEndpoints(options, async ({ host }) => {
      asked.push(host);
      throw host === FIRST.host ? new StatusError(502, host) : new StatusError(404, host);
    });
    await expect(outcome).rejects.toMatchObject({ status: 502 });
    expect(asked).toEqual(['first.test', 'second.test', 'first.test', 'first.test']);
  });
});
