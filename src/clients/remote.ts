import { OperatorError } from '../kit/operator-error.ts';
import { basicOf, type ClientFacts, type ClientKind, isLoopback, type Login } from './facts.ts';
import { getFromGateway } from './gateway-get.ts';

/** More than a table of ten thousand aliases takes. */
const MAX_FACTS = 4 * 1024 * 1024;
/** ms */
const PATIENCE = 15_000;

const HOST = /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[?[0-9a-f:.]+\]?)(?::\d{1,5})?$/i;

/**
 * What a gateway on another machine tells clients of this kind, from its page `/client/<kind>?json`. It goes into files that programs with every right
 * read, so that each part is checked for what it must be.
 * @throws {OperatorError} GATEWAY_UNREACHABLE
 */
export async function fetchFacts(
  gateway: string,
  kind: ClientKind,
  options: { readonly ca: string | null; readonly login: Login | null; readonly signal: AbortSignal },
): Promise<ClientFacts> {
  const url = new URL(`/client/${kind}?json`, originOf(gateway));
  const fail = (why: string, next?: string) =>
    new OperatorError('GATEWAY_UNREACHABLE', `${url.origin} ${why}`, next === undefined ? {} : { next });
  const { ca, login, signal } = options;
  const headers = login === null ? {} : { authorization: basicOf(login) };
  const question = { headers, ca, patience: PATIENCE, limit: MAX_FACTS, signal };
  const { status, text } = await getFromGateway(url, question).catch((cause: Error) => {
    throw fail(`cannot be asked: ${cause.message}`);
  });
  if (status === 401) throw fail('asks for credentials', 'give a user: --username NAME --password-stdin');
  if (status !== 200) throw fail(`answers ${status} and no client configuration`);
  let facts: unknown;
  try {
    facts = (JSON.parse(text) as { facts: unknown }).facts;
  } catch {
    throw fail('answers with something else than a client configuration', 'is it a gateway of this version?');
  }
  const problem = problemIn(facts);
  if (problem !== null) throw fail(`tells of itself what cannot be: ${problem}`);
  const told = facts as ClientFacts;
  if (isLoopback(told.domain) && !isLoopback(url.hostname)) {
    throw fail(
      `calls itself ${told.domain}, which on every machine is that machine itself`,
      'its operator gives it a name that others reach: GATEWAY_DOMAIN, or GATEWAY_PUBLIC_URL',
    );
  }
  return told;
}

/** A gateway's address as people write it: `https://cr.example.com`, with or without its scheme. @throws {OperatorError} usage */
export function originOf(gateway: string): string {
  try {
    const url = new URL(gateway.includes('://') ? gateway : `https://${gateway}`);
    if (url.protocol !== 'https:' && url.protocol !== 'http:') throw new Error('no https:// URL');
    return url.origin;
  } catch (cause) {
    throw new OperatorError('INPUT_INVALID', `--gateway ${gateway} is no address of a gateway`, {
      next: 'write it as https://cr.example.com',
      cause,
    });
  }
}

/** Why these are no facts of a gateway; null where they are. */
function problemIn(facts: unknown): string | null {
  const given = (facts ?? {}) as { [Key in keyof ClientFacts]?: unknown };
  const hosts = (value: unknown, pattern = HOST) =>
    Array.isArray(value) && value.every((one) => typeof one === 'string' && pattern.test(one));
  if (given.scheme !== 'https' && given.scheme !== 'http') return 'scheme';
  if (typeof given.domain !== 'string' || !HOST.test(given.domain)) return 'domain';
  if (given.port !== null && !Number.isInteger(given.port)) return 'port';
  if (typeof given.credentials !== 'boolean') return 'credentials';
  for (const key of ['registries', 'ownNames'] as const) if (!hosts(given[key])) return key;
  if (!hosts(given.patterns, /^[a-z0-9.*-]+$/)) return 'patterns';
  const aliases = given.aliases;
  const isAlias = (one: Partial<ClientFacts['aliases'][number]>) => hosts([one.host, one.registry]);
  if (!Array.isArray(aliases) || !aliases.every(isAlias)) return 'aliases';
  if (
    given.ca !== null &&
    !/^(?:-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+$/.test(
      (given.ca as { pem?: string } | undefined)?.pem ?? '',
    )
  )
    return 'ca';
  return null;
}
