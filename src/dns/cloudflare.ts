import type { DnsPlace, DnsRecord } from '../certs/dns-01.ts';
import { Api, type ApiCall, objects } from './api.ts';
import { type DnsProvider, type Secret, TTL } from './provider.ts';

const ENDPOINT = 'https://api.cloudflare.com/client/v4';
/** Error codes of `POST …/dns_records` where the very record is there. */
const EXISTS = new Set([81057, 81058]);
/** …of `DELETE` where another has removed it meanwhile. */
const GONE = new Set([81044]);
/** The most that one page of records may have; a name with more TXT values than this is no `_acme-challenge`. */
const PAGE = 100;

/** Cloudflare's API v4, with an API token that may edit DNS of the zone. https://developers.cloudflare.com/api/resources/dns/ */
export class Cloudflare implements DnsProvider {
  readonly kind = 'cloudflare';
  readonly name = 'cloudflare';
  readonly #endpoint: string;
  readonly #token: Secret;
  readonly #api = new Api('Cloudflare');

  constructor(token: Secret, endpoint: string | null) {
    this.#token = token;
    this.#endpoint = endpoint ?? ENDPOINT;
  }

  async add({ zone, name, value }: DnsRecord, signal: AbortSignal): Promise<void> {
    const id = await this.#zone(zone, signal);
    const comment = 'answers a challenge of a CA';
    const body = JSON.stringify({ type: 'TXT', name, content: `"${value}"`, ttl: TTL, comment });
    await this.#call('POST', `zones/${id}/dns_records`, signal, { body, accept: EXISTS });
  }

  async remove({ zone, name, value }: DnsRecord, signal: AbortSignal): Promise<void> {
    const id = await this.#zone(zone, signal);
    for (const record of await this.#records(id, name, signal)) {
      if (String(record.content).replace(/^"|"$/g, '') !== value) continue;
      await this.#call('DELETE', `zones/${id}/dns_records/${record.id}`, signal, { accept: GONE });
    }
  }

  async check({ zone, name }: DnsPlace, signal: AbortSignal): Promise<void> {
    await this.#records(await this.#zone(zone, signal), name, signal);
  }

  async #zone(zone: string, signal: AbortSignal): Promise<string> {
    const all = await this.#call('GET', `zones?${new URLSearchParams({ name: zone })}`, signal);
    // Several accounts may have begun with one zone; the registrar's name servers lead to one of them.
    const found = all.find(({ status }) => status === 'active') ?? all[0];
    if (typeof found?.id === 'string') return encodeURIComponent(found.id);
    throw this.#api.refused(`the token sees no zone ${zone}: it needs Zone.Zone:Read and Zone.DNS:Edit for it`);
  }

  async #records(id: string, name: string, signal: AbortSignal): Promise<Record<string, unknown>[]> {
    const query = new URLSearchParams({ type: 'TXT', name, per_page: String(PAGE) });
    return await this.#call('GET', `zones/${id}/dns_records?${query}`, signal);
  }

  /** What it gives, as a list. */
  async #call(
    method: ApiCall['method'],
    path: string,
    signal: AbortSignal,
    { body, accept }: { body?: string; accept?: ReadonlySet<unknown> } = {},
  ): Promise<Record<string, unknown>[]> {
    const headers = { authorization: `Bearer ${await this.#token()}`, 'content-type': 'application/json' };
    const url = `${this.#endpoint}/${path}`;
    const answer = await this.#api.call({ method, url, headers, ...(body === undefined ? {} : { body }) }, signal);
    const { success, result, errors } = answer.body;
    if (success === true) return Array.isArray(result) ? objects(result) : objects([result]);
    const problems = objects(errors);
    if (problems.length > 0 && problems.every(({ code }) => accept?.has(code) === true)) return [];
    const words = problems
      .flatMap((problem) => [problem, ...objects(problem.error_chain)])
      .map(({ code, message }) => `${message} (${code})`)
      .join('; ');
    throw this.#api.refused(`it answered ${answer.status}${words === '' ? '' : `: ${words}`}`);
  }
}
