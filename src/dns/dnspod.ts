import type { DnsPlace, DnsRecord } from '../certs/dns-01.ts';
import { Api, labelsIn, object, objects } from './api.ts';
import { type DnsProvider, type Secret, TTL_FREE_PLAN } from './provider.ts';

const ENDPOINT = 'https://dnsapi.cn';
/** Codes of its answers. */
const DONE = '1';
const NO_RECORDS = '10';
const EXISTS = '104';
const NO_SUCH_RECORD = '8';
/** DNSPod refuses programs that do not name themselves. */
const USER_AGENT = 'registry-gateway/1.0';

/** DNSPod (Tencent Cloud), by a DNSPod token. https://docs.dnspod.cn/api/ ; accounts of DNSPod International have an API of their own. */
export class Dnspod implements DnsProvider {
  readonly kind = 'dnspod';
  readonly name: string;
  readonly #endpoint: string;
  readonly #tokenId: string;
  readonly #token: Secret;
  readonly #api = new Api('DNSPod');

  constructor(tokenId: string, token: Secret, endpoint: string | null) {
    this.name = `dnspod (token ${tokenId})`;
    this.#tokenId = tokenId;
    this.#token = token;
    this.#endpoint = endpoint ?? ENDPOINT;
  }

  async add({ zone, name, value }: DnsRecord, signal: AbortSignal): Promise<void> {
    // The line that answers everybody; its name depends on the language, its number only the Chinese API knows.
    const line = this.#endpoint.includes('dnspod.com') ? { record_line: 'default' } : { record_line_id: '0' };
    const record = { sub_domain: labelsIn(zone, name), record_type: 'TXT', value, ttl: String(TTL_FREE_PLAN), ...line };
    await this.#call('Record.Create', { domain: zone, ...record }, signal, EXISTS);
  }

  async remove({ zone, name, value }: DnsRecord, signal: AbortSignal): Promise<void> {
    for (const record of await this.#records(zone, name, signal)) {
      if (record.value !== value) continue;
      await this.#call('Record.Remove', { domain: zone, record_id: String(record.id) }, signal, NO_SUCH_RECORD);
    }
  }

  async check({ zone, name }: DnsPlace, signal: AbortSignal): Promise<void> {
    await this.#records(zone, name, signal);
  }

  async #records(zone: string, name: string, signal: AbortSignal): Promise<Record<string, unknown>[]> {
    const query = { domain: zone, sub_domain: labelsIn(zone, name), record_type: 'TXT' };
    const { records } = await this.#call('Record.List', query, signal, NO_RECORDS);
    return objects(records).filter(({ type }) => type === 'TXT');
  }

  /** @param accept the code of a refusal that means: it is so already */
  async #call(
    action: string,
    parameters: Readonly<Record<string, string>>,
    signal: AbortSignal,
    accept?: string,
  ): Promise<Readonly<Record<string, unknown>>> {
    const loginToken = `${this.#tokenId},${await this.#token()}`;
    const form = new URLSearchParams({ login_token: loginToken, format: 'json', lang: 'en', ...parameters });
    const headers = { 'content-type': 'application/x-www-form-urlencoded', 'user-agent': USER_AGENT };
    const url = `${this.#endpoint}/${action}`;
    const { status, body } = await this.#api.call({ method: 'POST', url, headers, body: form.toString() }, signal);
    const told = object(body.status);
    const code = String(told?.code ?? '');
    if (code === DONE || code === accept) return body;
    const words = told === null ? `it answered ${status}` : `${told.message} (${code})`;
    throw this.#api.refused(`${action} of ${parameters.domain}: ${words}`);
  }
}
