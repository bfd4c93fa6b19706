import { seedRows } from '../aliases/yaml.ts';
import { describeAuthorities } from '../kit/authorities.ts';
import { didYouMean } from '../kit/did-you-mean.ts';
import { iso } from '../kit/time.ts';
import type { NamedCredentials } from '../oci/credentials.ts';
import { shutDownIn } from '../oci/known-registries.ts';
import { isPattern } from '../oci/names.ts';
import {
  CredentialsWithheldError,
  ForbiddenAddressError,
  RedirectError,
  reasonClass,
  reasonOf,
  TokenRefusedError,
  trustAdvice,
} from '../upstream/failures.ts';
import { type RegistryAnswer, RegistryCheck } from '../upstream/registry-check.ts';
import type { Route } from '../upstream/upstream.ts';
import type { EndpointVerdict, OperationContext } from './contract.ts';
import type { OperationsDeps } from './operation.ts';

/** What registries are judged with. */
export interface JudgeContext {
  /** Hosts of registries that there are, for a name that does not resolve. */
  readonly known: Iterable<string>;
  /** ms since 1970. */
  readonly now: number;
  /** The credentials that it was asked with, where they are for some of its repositories. */
  readonly named?: NamedCredentials | undefined;
}

/**
 * Tries each endpoint of a registry as a pull would: its name, TCP, TLS, `/v2/` and a token. Ends within ten seconds. Empty for a pattern: it
 * is no host, so that there is nobody to ask.
 */
export async function tryRegistry(
  deps: Pick<OperationsDeps, 'config' | 'pseudonym'>,
  route: Route,
  known: Iterable<string>,
  signal: AbortSignal,
  named?: NamedCredentials,
): Promise<readonly EndpointVerdict[]> {
  if (isPattern(route.host)) return [];
  const check = new RegistryCheck(deps.config.upstream, deps.pseudonym);
  try {
    return await Promise.all(
      route.endpoints.map(async (endpoint): Promise<EndpointVerdict> => {
        const ended = shutDownIn(new URL(endpoint).host);
        if (ended !== null) {
          const message = `${endpoint} was shut down in ${ended}: what is kept of it is served, and nothing new comes`;
          return { endpoint, level: 'ok', message, next: null, because: '' };
        }
        const answer = await check.ask(askedWith(route, named), endpoint, signal);
        return judgeAnswer(route, endpoint, answer, { known, now: Date.now(), named });
      }),
    );
  } finally {
    void check.close();
  }
}

/** The registry as it is asked with some of its credentials; left out: with its own. */
export function askedWith(route: Route, named: NamedCredentials | undefined): Route {
  return named === undefined ? route : { ...route, credentials: named };
}

/**
 * Tries a registry of the table and tells what was seen, a step for each endpoint.
 * @param name of the credentials to try it with; left out, or of some that are not there: its own
 */
export async function tryInTable(
  deps: OperationsDeps,
  host: string,
  { step, signal }: OperationContext,
  name?: string,
): Promise<readonly EndpointVerdict[]> {
  const { registries } = deps.table.snapshot();
  const others = [...registries.keys(), ...seedRows().map((row) => row.host)].filter((one) => one !== host);
  const route = deps.table.registry(host);
  const named = route.named.find((one) => one.name === name);
  const verdicts = await tryRegistry(deps, route, others, signal, named);
  for (const { level, message } of verdicts) step(level === 'ok' ? 'reach' : level, message);
  return verdicts;
}

/** In words what was seen, with the next step. */
export function judgeAnswer(
  route: Route,
  endpoint: string,
  answer: RegistryAnswer,
  context: JudgeContext,
): EndpointVerdict {
  const where = answer.proxy === null ? endpoint : `${endpoint} through ${answer.proxy.host}:${answer.proxy.port}`;
  const { level, says, next = null, because = '' } = judge(route, new URL(endpoint), answer, context);
  const advice =
    level === 'fail' && MISTYPED.has(because) ? orMeant(new URL(endpoint).host, next, context.known) : next;
  return { endpoint, level, message: `${where} ${says}`, next: advice, because };
}

/** What a mistyped name leads to: nothing at all, or somebody else's host. */
const MISTYPED = new Set(['name', 'connect', 'connect timeout', 'timeout', 'certificate', 'no registry']);

function orMeant(host: string, next: string | null, known: Iterable<string>): string | null {
  const all = [...known];
  const meant = all.includes(host) ? undefined : didYouMean(host, all);
  return meant === undefined ? next : `did you mean ${meant}? Else ${next ?? 'check the name'}`;
}

interface Judgement extends Pick<EndpointVerdict, 'level'> {
  /** What follows the endpoint in a sentence. */
  readonly says: string;
  readonly next?: string | null;
  readonly because?: string;
}

function judge(route: Route, endpoint: URL, answer: RegistryAnswer, { now, named }: JudgeContext): Judgement {
  const { host } = route;
  const set = (rest: string) => `gateway registry set ${host} ${rest}`;
  const elsewhere = `give it the endpoint of the registry itself: ${set('--endpoint URL')}`;
  if (answer.otherScheme) {
    const scheme = endpoint.protocol === 'http:' ? 'https' : 'http';
    const port = endpoint.port === '' ? (endpoint.protocol === 'http:' ? ':80' : ':443') : `:${endpoint.port}`;
    return {
      level: 'fail',
      says: `speaks ${scheme === 'https' ? 'HTTPS' : 'plain HTTP'} there`,
      next: `if that is meant: ${set(`--endpoint ${scheme}://${endpoint.hostname}${port}${endpoint.pathname === '/' ? '' : endpoint.pathname}`)}`,
      because: 'scheme',
    };
  }
  if (answer.status === null) return unreached(route, endpoint, answer, now);

  const { status, redirectedTo } = answer;
  const through = redirectedTo === null ? '' : `, by a redirect to ${redirectedTo}`;
  const answers = `answers (${status}, ${Math.round(answer.ms)} ms${through})`;
  if (status === 508) return { level: 'fail', says: 'leads back to this gateway', next: elsewhere, because: 'loop' };
  if (status === 407) return throughProxy(host, `answered 407: the proxy wants credentials`);
  if (status === 429) {
    return {
      level: 'warn',
      says: `${answers}: it limits requests from here`,
      next: `credentials raise the limit: ${set('--username U --password-stdin')}`,
    };
  }
  if (status >= 500) {
    const next = 'it has a fault of its own: try again later; another endpoint helps, if there is one';
    return { level: 'fail', says: answers, next, because: `status ${status}` };
  }
  if (answer.looksLike === 'page') {
    return {
      level: 'fail',
      says: `${answers} with a web page: that is no registry, but a web site or the login of a network`,
      next: elsewhere,
      because: 'no registry',
    };
  }
  const refused = refusedLogin(route, answer, elsewhere, named);
  if (refused !== null) return refused;
  if (status >= 300 && status !== 401 && answer.looksLike !== 'registry') {
    return {
      level: status === 404 || status === 400 ? 'fail' : 'warn',
      says: `${answers}, which no registry does at /v2/`,
      next:
        answer.proxy === null
          ? elsewhere
          : `see whether that is the proxy's own answer, and it allows this host; else ${elsewhere}`,
      because: 'no registry',
    };
  }
  const login = {
    accepted:
      named === undefined
        ? ', and takes the credentials'
        : `, and takes the credentials ${named.name}; whether they open ${listed(named.for)} the first pull shows`,
    anonymous: status === 401 ? ', and gives everybody a token' : '',
    refused: '',
    wanted: '',
    unknown: '',
  }[answer.login];
  return { level: 'ok', says: `${answers}${login}` };
}

/** What is wrong with the credentials; null where nothing is. */
function refusedLogin(
  route: Route,
  { failure, login, status }: RegistryAnswer,
  elsewhere: string,
  named: NamedCredentials | undefined,
): Judgement | null {
  const { host } = route;
  const { credentials } = askedWith(route, named);
  const logIn = `gateway registry set ${host} ${named === undefined ? '' : `--credential ${named.name} `}--username U --password-stdin`;
  if (failure instanceof CredentialsWithheldError) {
    return {
      level: 'fail',
      says: `wants the credentials sent to ${failure.host}, which is outside its own domain: nothing was sent there`,
      next: `if that host is its own: gateway registry set ${host} --realm ${failure.host}`,
      because: 'credentials',
    };
  }
  const isRefused = failure instanceof TokenRefusedError && credentials !== null;
  if (isRefused || login === 'refused') {
    const says = `refuses the credentials${named === undefined ? '' : ` ${named.name}`}${failure === null ? ` (${status})` : `: ${reasonOf(failure)}`}`;
    return { level: 'fail', says, next: `check user and password, then: ${logIn}`, because: 'credentials' };
  }
  if (login === 'wanted' && route.named.length > 0) {
    const has = listed(route.named.flatMap((one) => one.for));
    return { level: 'ok', says: `answers (${status}) and wants a login, which only ${has} have here` };
  }
  if (login === 'wanted') {
    return {
      level: 'warn',
      says: `answers (${status}) and wants a login: without one nothing can be pulled`,
      next: logIn,
    };
  }
  // Without credentials a token of no repository may well be refused: some registries give anonymous ones for a repository alone.
  if (failure === null || failure instanceof TokenRefusedError) return null;
  return {
    level: 'fail',
    says: `answers (${status}), but gives no token: ${reasonOf(failure)}`,
    next: isElsewhere(failure)
      ? `nothing was sent there: whoever runs the registry corrects where it sends for tokens; or ${elsewhere}`
      : 'check the way from here to the host that gives its tokens',
    because: reasonClass(failure),
  };
}

/** Patterns in a sentence, the first few of many. */
function listed(patterns: readonly string[]): string {
  const MOST = 5;
  const more = patterns.length - MOST;
  return `${patterns.slice(0, MOST).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

/** Whether the registry sends for its tokens where nothing may be sent: an address inside, or without TLS. */
function isElsewhere(failure: Error): boolean {
  const causes = [failure, failure.cause];
  return causes.some((one) => one instanceof RedirectError || one instanceof ForbiddenAddressError);
}

function unreached(route: Route, endpoint: URL, answer: RegistryAnswer, now: number): Judgement {
  const { host } = route;
  const because = reasonClass(answer.failure);
  const reason = reasonOf(answer.failure);
  const failed = (next: string, says = `cannot be reached: ${reason}`): Judgement => ({
    level: 'fail',
    says,
    next,
    because,
  });
  if (because === 'proxy') return throughProxy(host, `cannot be reached: ${reason}`);
  if (because === 'name' && answer.proxy?.resolves === false) {
    return failed(
      `check the name; this machine resolves it where the proxy is socks5://, to have the proxy do so write socks5h:// (gateway registry set ${host} --proxy URL, or upstream.proxy)`,
    );
  }
  if (because === 'name') {
    return failed(
      `check the name, and the DNS server of this machine; or name another place: gateway registry set ${host} --endpoint URL`,
    );
  }
  if (because === 'certificate') return untrusted(route, reason, answer, now);
  const port = endpoint.port === '' ? (endpoint.protocol === 'http:' ? '80' : '443') : endpoint.port;
  const isSilent = because === 'connect timeout' || because === 'timeout';
  if (isSilent && answer.proxy !== null) return throughProxy(host, `cannot be reached: ${reason}`);
  if (isSilent) {
    return failed(
      `let this machine out to ${endpoint.hostname}:${port} (firewall, security group, route), or name the proxy that leads there: gateway registry set ${host} --proxy URL`,
    );
  }
  return failed(
    `see whether it runs and listens on port ${port}, or correct where it is: gateway registry set ${host} --endpoint URL`,
  );
}

function throughProxy(host: string, says: string): Judgement {
  const next = /\b407\b/.test(says)
    ? `give the proxy's user and password: gateway registry set ${host} --proxy http://USER:PASSWORD@PROXY:PORT (upstream.proxy for all registries)`
    : /\b403\b/.test(says)
      ? `let whoever runs the proxy allow this host, or go another way: gateway registry set ${host} --proxy URL`
      : `see whether the proxy runs and its address is right: gateway registry set ${host} --proxy URL, upstream.proxy, or HTTPS_PROXY in the environment of the gateway`;
  return { level: 'fail', says, next, because: 'proxy' };
}

function untrusted(route: Route, reason: string, { failure, certificate }: RegistryAnswer, now: number): Judgement {
  const { host, ca } = route;
  const says = (more: string) => `cannot be trusted: ${reason}${more}`;
  const fail = (text: string, next: string): Judgement => ({ level: 'fail', says: text, next, because: 'certificate' });
  const expired = ca === null ? [] : describeAuthorities(ca).filter(({ notAfter }) => Date.parse(notAfter) < now);
  const [first] = expired;
  if (first !== undefined) {
    return fail(
      says(`; the authority that --ca named for it (${first.subject}) expired at ${first.notAfter}`),
      `get the new one from whoever runs the registry: gateway registry set ${host} --ca FILE`,
    );
  }
  if (certificate === null)
    return fail(
      says(''),
      trustAdvice(failure, host) ?? `look at its certificate from here: openssl s_client -connect ${host}:443`,
    );
  const clock = `this machine's clock says ${iso(now)}`;
  if (certificate.notAfter < now) {
    return fail(
      says(` at ${iso(certificate.notAfter)}; ${clock}`),
      'if the clock is right, whoever runs the registry has to renew its certificate; else set the clock (chrony, systemd-timesyncd)',
    );
  }
  if (certificate.notBefore > now) {
    return fail(
      says(` (from ${iso(certificate.notBefore)} on; ${clock})`),
      'set the clock (chrony, systemd-timesyncd); if it is right, the certificate is made for later',
    );
  }
  const advice = trustAdvice(failure, host);
  if (advice === null) {
    return fail(
      says(` (${certificate.names || 'none'})`),
      `name the registry as its certificate does: gateway registry set ${host} --endpoint https://NAME`,
    );
  }
  return fail(
    says(` (${certificate.issuer})`),
    `if that is your own authority, name its certificate: gateway registry set ${host} --ca FILE (or upstream.caFile for all registries); else something between here and the registry answers in its place`,
  );
}
