import type { RegistryEntry } from '../../aliases/table.ts';
import { seedRows } from '../../aliases/yaml.ts';
import type { NamedCredentials } from '../../oci/credentials.ts';
import { shutDownIn } from '../../oci/known-registries.ts';
import { isPattern } from '../../oci/names.ts';
import { ConnectError } from '../../upstream/failures.ts';
import { NO_ANSWER, type RegistryAnswer, RegistryCheck } from '../../upstream/registry-check.ts';
import type { OperationsDeps } from '../operation.ts';
import { askedWith, judgeAnswer } from '../registry-check.ts';
import { isPublic } from './certificates.ts';
import type { Finding } from './finding.ts';
import type { Names } from './resolver.ts';
import { inTime } from './surroundings.ts';

/** Endpoints asked at once: all of a table that people make, and some of one with thousands of rows. */
const PARALLEL_ENDPOINTS = 128;
/** For one endpoint, its token included, ms: a person waits for all of them together. */
const ASK_TIMEOUT = 5_000;

type RegistriesDeps = Pick<OperationsDeps, 'config' | 'pseudonym' | 'table'>;

interface Asked {
  readonly route: RegistryEntry;
  readonly endpoint: string;
  /** With which of its credentials; left out: its own. */
  readonly named?: NamedCredentials;
}

/** Endpoints of the table that can be asked, with each login that there is for them: a pattern is no host, and there is nobody to ask. */
function endpointsOf({ table }: RegistriesDeps): Asked[] {
  const registries = [...table.snapshot().registries.values()].filter(({ host }) => !isPattern(host));
  return registries
    .sort((a, b) => (a.host < b.host ? -1 : 1))
    .flatMap((route) =>
      route.endpoints.flatMap((endpoint): Asked[] => [
        { route, endpoint },
        ...route.named.map((named) => ({ route, endpoint, named })),
      ]),
    );
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
  names: Pick<Names, 'canResolve' | 'exists'>,
  signal: AbortSignal,
): Promise<{ findings: Finding[]; skews: number[] }> {
  const check = new RegistryCheck(deps.config.upstream, deps.pseudonym, { timeout: ASK_TIMEOUT });
  const known = [...deps.table.snapshot().registries.keys(), ...seedRows().map(({ host }) => host)];
  const skews: number[] = [];
  try {
    const ask = async ({ route, endpoint, named }: Asked): Promise<Finding> => {
      const name = `registry ${route.host}${named === undefined ? '' : ` (${named.name})`}`;
      const ended = shutDownIn(new URL(endpoint).host);
      // That it does not answer is no fault of this gateway or of its network.
      if (ended !== null)
        return {
          name,
          level: 'ok',
          message: `${endpoint} was shut down in ${ended}: what is kept of it is served, and nothing new comes`,
        };
      const first = check.proxyFor(route, endpoint)?.host ?? hostOf(endpoint);
      const outward = isPublic(first);
      if (!names.canResolve(first)) return { ...unnamed(name, endpoint), outward };
      const asked = names
        .exists(first)
        .then((exists) => (exists ? check.ask(askedWith(route, named), endpoint, signal) : noName(first)));
      const answer = await inTime(asked, signal, () => null);
      if (answer === null) return { ...unanswered(name, endpoint), outward };
      // The answer was made about half a round trip ago, and a Date header leaves out half a second on average (whole seconds, RFC 9110 §5.6.7).
      const now = Date.now();
      if (answer.serverTime !== null) skews.push(answer.serverTime + 500 + answer.ms / 2 - now);
      const { level, message, next, because } = judgeAnswer(route, endpoint, answer, {
        known: known.filter((one) => one !== route.host),
        now,
        named,
      });
      const finding = { name, level, message, outward, because: causeOf(answer, because, now) };
      return next === null ? finding : { ...finding, next };
    };
    const findings: Finding[] = [];
    for await (const finding of mapInOrder(endpointsOf(deps), PARALLEL_ENDPOINTS, ask)) findings.push(finding);
    return { findings: [...findings, ...patterns(deps), ...emptyTable(deps)], skews };
  } finally {
    void check.close();
  }
}

/** The word by which findings of one cause know each other: of a proxy with its address, of a certificate with its issuer. */
function causeOf({ proxy, certificate }: RegistryAnswer, because: string, now: number): string {
  if (because === 'proxy') return `proxy ${proxy?.host}:${proxy?.port}`;
  if (because !== 'certificate' || certificate === null) return because;
  const isDated = certificate.notAfter < now || certificate.notBefore > now;
  return isDated ? 'certificate dates' : `certificate of ${certificate.issuer}`;
}

/** As a pull would see it. */
function noName(host: string): RegistryAnswer {
  const cause = Object.assign(new Error(`there is no ${host}`), { code: 'ENOTFOUND' });
  return { ...NO_ANSWER, failure: new ConnectError(host, 'endpoint', cause) };
}

function unanswered(name: string, endpoint: string): Finding {
  const message = `${endpoint} cannot be reached: no answer came in time`;
  return { name, level: 'fail', message, next: 'check the way out of this machine', because: 'timeout' };
}

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

function unnamed(name: string, endpoint: string): Finding {
  const message = `${endpoint} cannot be looked up: no DNS server answers`;
  return { name, level: 'fail', message, next: 'start the DNS server', because: 'name' };
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
