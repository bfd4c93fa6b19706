import { redactUrl } from '../../kit/http.ts';
import { shutDownIn } from '../../oci/known-registries.ts';
import { isPattern } from '../../oci/names.ts';
import { EndpointCheck, type EndpointCheckResult } from '../../upstream/net/endpoint-check.ts';
import type { Check } from '../contract.ts';
import type { OperationsDeps } from '../operation.ts';

/** Endpoints asked at once. */
const PARALLEL_ENDPOINTS = 8;
/** Deviation of the clock, ms, that is worth a warning, and one at which certificates and tokens are refused. */
const SKEW_WARN = 30_000;
const SKEW_FAIL = 5 * 60_000;

/** Whether every registry answers, through each of its endpoints; then whether this machine's clock agrees with theirs. */
export async function* checkRegistries(deps: OperationsDeps, signal: AbortSignal): AsyncGenerator<Check> {
  const check = new EndpointCheck(deps.config.upstream, deps.pseudonym);
  const skews: number[] = [];
  try {
    // A pattern is no host: there is nobody to ask.
    const registries = [...deps.table.snapshot().registries.values()]
      .filter(({ host }) => !isPattern(host))
      .sort((a, b) => (a.host < b.host ? -1 : 1));
    const asked = registries.flatMap((route) => route.endpoints.map((endpoint) => ({ route, endpoint })));
    yield* mapInOrder(asked, PARALLEL_ENDPOINTS, async ({ route, endpoint }) => {
      const ended = shutDownIn(new URL(endpoint).host);
      if (ended !== null) return judgeShutDown(route.host, endpoint, ended);
      const answer = await check.ask(route, endpoint, signal);
      // The answer was made about half a round trip ago, and a Date header leaves out half a second on average (whole seconds, RFC 9110 §5.6.7).
      if (answer.serverTime !== null) skews.push(answer.serverTime + 500 + answer.ms / 2 - Date.now());
      const { proxy } = route;
      return judgeRegistry(route.host, endpoint, answer, proxy === null ? '' : ` through ${redactUrl(proxy)}`);
    });
  } finally {
    await check.close();
  }
  yield checkClock(skews);
}

/** That it does not answer is no fault of this gateway or of its network. */
function judgeShutDown(host: string, endpoint: string, year: string): Check {
  const message = `${endpoint} was shut down in ${year}: what is kept of it is served, and nothing new comes`;
  return { name: `registry ${host}`, level: 'ok', message };
}

function judgeRegistry(host: string, endpoint: string, answer: EndpointCheckResult, through: string): Check {
  const name = `registry ${host}`;
  const where = `${endpoint}${through}`;
  if (answer.status === null) {
    return {
      name,
      level: 'fail',
      message: `${where} cannot be reached: ${answer.problem}`,
      next:
        answer.next ??
        `check the network and proxies from here, or change it: gateway registry set ${host} --endpoint URL`,
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
  return { name, level: 'ok', message };
}

/** By the median, so that one server with a wrong clock changes nothing. */
export function checkClock(skews: readonly number[]): Check {
  const sorted = skews.toSorted((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  const name = 'clock';
  if (median === undefined) {
    return { name, level: 'warn', message: 'no registry answered, so there is no clock to compare with' };
  }
  const off = Math.abs(median);
  const seconds = Math.round(off / 1000);
  if (off < SKEW_WARN) return { name, level: 'ok', message: `agrees with ${skews.length} servers` };
  return {
    name,
    level: off < SKEW_FAIL ? 'warn' : 'fail',
    message: `is ${seconds} s ${median > 0 ? 'behind' : 'ahead of'} the clocks of the registries`,
    next: 'let chrony or systemd-timesyncd set it: certificates and tokens depend on it',
  };
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
