import https from 'node:https';
import { isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { RegistryEntry } from '../../aliases/table.ts';
import { shutDownIn } from '../../oci/known-registries.ts';
import { isPattern } from '../../oci/names.ts';
import { EndpointCheck, type EndpointCheckResult } from '../../upstream/net/endpoint-check.ts';
import type { OperationsDeps } from '../operation.ts';
import { isPublic } from './certificates.ts';
import type { Finding } from './finding.ts';
import type { Names } from './resolver.ts';
import { inTime } from './surroundings.ts';

/** Endpoints asked at once: all of a table that people make, and some of one with thousands of rows. */
const PARALLEL_ENDPOINTS = 128;
/** A host whose certificate was refused is asked for it once more, ms. */
const STRANGER_TIMEOUT = 3_000;

type RegistriesDeps = Pick<OperationsDeps, 'config' | 'pseudonym' | 'table'>;

/** Endpoints of the table that can be asked: a pattern is no host, and there is nobody to ask. */
function endpointsOf({ table }: RegistriesDeps): { readonly route: RegistryEntry; readonly endpoint: string }[] {
  const registries = [...table.snapshot().registries.values()].filter(({ host }) => !isPattern(host));
  return registries
    .sort((a, b) => (a.host < b.host ? -1 : 1))
    .flatMap((route) => route.endpoints.map((endpoint) => ({ route, endpoint })));
}

/** Hosts of endpoints, for the check of the DNS servers. */
export function endpointHosts(deps: RegistriesDeps): string[] {
  return [...new Set(endpointsOf(deps).map(({ endpoint }) => hostOf(endpoint)))];
}

function hostOf(endpoint: string): string {
  return new URL(endpoint).hostname.replace(/^\[|\]$/g, '');
}

/** Whether every registry answers through each of its endpoints, and by how much each server's clock is ahead of ours, ms. */
export async function checkRegistries(
  deps: RegistriesDeps,
  names: Pick<Names, 'canResolve'>,
  signal: AbortSignal,
): Promise<{ findings: Finding[]; skews: number[] }> {
  const check = new EndpointCheck(deps.config.upstream, deps.pseudonym);
  const skews: number[] = [];
  try {
    const ask = async ({ route, endpoint }: ReturnType<typeof endpointsOf>[number]): Promise<Finding> => {
      const ended = shutDownIn(new URL(endpoint).host);
      if (ended !== null) return judgeShutDown(route.host, endpoint, ended);
      const way = check.way(route, endpoint);
      const outward = isPublic(way.proxy?.host ?? hostOf(endpoint));
      if (way.resolves && !names.canResolve(way.proxy?.host ?? hostOf(endpoint)))
        return { ...unnamed(route.host, endpoint), outward };
      const late = (): EndpointCheckResult => LATE;
      const answer = await inTime(check.ask(route, endpoint, signal), signal, late);
      // The answer was made about half a round trip ago, and a Date header leaves out half a second on average (whole seconds, RFC 9110 §5.6.7).
      if (answer.serverTime !== null) skews.push(answer.serverTime + 500 + answer.ms / 2 - Date.now());
      const through = way.proxy === null ? null : `${way.proxy.host}:${way.proxy.port}`;
      const finding = judgeRegistry(route.host, endpoint, answer, through);
      if (answer.reason !== 'certificate' || through !== null) return { ...finding, outward };
      return { ...(await explainStranger(finding, endpoint, signal, skews)), outward };
    };
    const findings: Finding[] = [];
    for await (const finding of mapInOrder(endpointsOf(deps), PARALLEL_ENDPOINTS, ask)) findings.push(finding);
    return { findings: [...findings, ...patterns(deps), ...emptyTable(deps)], skews };
  } finally {
    void check.close();
  }
}

const LATE: EndpointCheckResult = {
  status: null,
  ms: 0,
  problem: 'no answer came in time',
  reason: 'timeout',
  next: null,
  serverTime: null,
};

function* patterns({ table }: RegistriesDeps): Generator<Finding> {
  for (const { host } of table.snapshot().registries.values()) {
    if (!isPattern(host)) continue;
    yield { name: `registry ${host}`, level: 'ok', message: 'a pattern: no host by itself, so it was not asked' };
  }
}

function emptyTable({ table }: RegistriesDeps): Finding[] {
  if (table.snapshot().registries.size > 0) return [];
  return [
    {
      name: 'table',
      level: 'fail',
      message: 'there is no registry in the table: every pull is refused',
      next: 'take the usual ones (gateway alias import --presets), or add one (gateway alias add NAME REGISTRY)',
    },
  ];
}

function unnamed(host: string, endpoint: string): Finding {
  const message = `${endpoint} cannot be looked up: no DNS server answers`;
  return { name: `registry ${host}`, level: 'fail', message, next: 'start the DNS server', because: 'name' };
}

/** That it does not answer is no fault of this gateway or of its network. */
function judgeShutDown(host: string, endpoint: string, year: string): Finding {
  const message = `${endpoint} was shut down in ${year}: what is kept of it is served, and nothing new comes`;
  return { name: `registry ${host}`, level: 'ok', message };
}

function judgeRegistry(host: string, endpoint: string, answer: EndpointCheckResult, proxy: string | null): Finding {
  const name = `registry ${host}`;
  const where = proxy === null ? endpoint : `${endpoint} through ${proxy}`;
  if (answer.status === null) {
    const { reason } = answer;
    return {
      name,
      level: 'fail',
      message: `${where} cannot be reached: ${answer.problem}`,
      next:
        answer.next ??
        `check the network and proxies from here, or change it: gateway registry set ${host} --endpoint URL`,
      because: reason === 'proxy' ? `proxy ${proxy}` : reason,
    };
  }
  const message = `${where} answers (${answer.status}, ${Math.round(answer.ms)} ms)`;
  if (answer.status === 429) {
    return {
      name,
      level: 'warn',
      message: `${message}: it limits requests from here`,
      next: `credentials raise the limit: gateway registry set ${host} --username U --password-stdin`,
    };
  }
  if (answer.status === 508) {
    return {
      name,
      level: 'fail',
      message: `${where} leads back to this gateway`,
      next: `give it the endpoint of the registry itself: gateway registry set ${host} --endpoint URL`,
    };
  }
  if (answer.status >= 500) {
    return { name, level: 'fail', message, next: 'it has a fault of its own; another endpoint helps, if there is one' };
  }
  if (answer.status >= 300 && answer.status < 400) {
    return {
      name,
      level: 'warn',
      message: `${where} redirects /v2/ elsewhere (${answer.status}): registries do not, but captive portals and web sites do`,
      next: `log in at the portal, or give it the endpoint of the registry itself: gateway registry set ${host} --endpoint URL`,
    };
  }
  return { name, level: 'ok', message };
}

const DATES = new Set(['CERT_NOT_YET_VALID', 'CERT_HAS_EXPIRED']);

/** A certificate that was refused: who signed it, so that a stranger who signs all of them is seen, and the server's clock. */
async function explainStranger(
  finding: Finding,
  endpoint: string,
  signal: AbortSignal,
  skews: number[],
): Promise<Finding> {
  const url = new URL(endpoint);
  const host = hostOf(endpoint);
  const seen = await new Promise<{ issuer: string; code: string; date: number } | null>((resolve) => {
    const call = https.request(
      {
        host,
        port: url.port || 443,
        path: '/v2/',
        // Nothing is sent that matters, and nothing that comes is believed.
        rejectUnauthorized: false,
        servername: isIP(host) === 0 ? host : '',
        agent: false,
        signal: AbortSignal.any([signal, AbortSignal.timeout(STRANGER_TIMEOUT)]),
      },
      (response) => {
        response.resume();
        const socket = response.socket as TLSSocket;
        const issuer = socket.getPeerX509Certificate()?.issuer.split('\n').reverse().join(', ') ?? 'nobody';
        const code = String(socket.authorizationError ?? '');
        resolve({ issuer, code, date: Date.parse(response.headers.date ?? '') });
      },
    );
    call.on('error', () => resolve(null));
    call.end();
  });
  if (seen === null) return finding;
  const message = `${finding.message} (signed by ${seen.issuer})`;
  if (DATES.has(seen.code)) {
    if (!Number.isNaN(seen.date)) skews.push(seen.date + 500 - Date.now());
    return { ...finding, message, because: 'certificate dates' };
  }
  return { ...finding, message, because: `certificate of ${seen.issuer}` };
}

/** Runs `task` for each item, at most `width` at once, and yields the results in the order of the items. */
export async function* mapInOrder<T, R>(
  items: readonly T[],
  width: number,
  task: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  let next = 0;
  const fill = (): void => {
    while (running.length < width && next < items.length) {
      const promise = task(items[next] as T);
      // Awaited in its turn; a failure meanwhile is not unhandled.
      promise.catch(() => {});
      running.push(promise);
      next += 1;
    }
  };
  for (fill(); running.length > 0; fill()) yield await (running.shift() as Promise<R>);
}
