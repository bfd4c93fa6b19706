import { createHash, createHmac, randomUUID } from 'node:crypto';
import type { DnsPlace, DnsRecord } from '../certs/dns-01.ts';
import { Api, labelsIn, object, objects } from './api.ts';
import { type DnsProvider, type Secret, TTL_FREE_PLAN } from './provider.ts';

const ENDPOINT = 'https://alidns.aliyuncs.com';
const VERSION = '2015-01-09';
const ALGORITHM = 'ACS3-HMAC-SHA256';
/** The most that one page of records may have. */
const PAGE = 500;

/** Alibaba Cloud DNS, signed by an AccessKey (request signature V3). https://help.aliyun.com/zh/dns/api-alidns-2015-01-09-overview */
export class Alidns implements DnsProvider {
  readonly kind = 'alidns';
  readonly name: string;
  readonly #endpoint: string;
  readonly #keyId: string;
  readonly #secret: Secret;
  readonly #api = new Api('Alibaba Cloud DNS');

  constructor(keyId: string, secret: Secret, endpoint: string | null) {
    this.name = `alidns (AccessKey ${keyId})`;
    this.#keyId = keyId;
    this.#secret = secret;
    this.#endpoint = endpoint ?? ENDPOINT;
  }

  async add({ zone, name, value }: DnsRecord, signal: AbortSignal): Promise<void> {
    const record = {
      DomainName: zone,
      RR: labelsIn(zone, name),
      Type: 'TXT',
      Value: value,
      TTL: String(TTL_FREE_PLAN),
    };
    await this.#call('AddDomainRecord', record, signal, 'DomainRecordDuplicate');
  }

  async remove({ zone, name, value }: DnsRecord, signal: AbortSignal): Promise<void> {
    for (const record of await this.#records(zone, name, signal)) {
      if (record.Value !== value) continue;
      await this.#call(
        'DeleteDomainRecord',
        { RecordId: String(record.RecordId) },
        signal,
        'DomainRecordNotBelongToUser',
      );
    }
  }

  async check({ zone, name }: DnsPlace, signal: AbortSignal): Promise<void> {
    await this.#records(zone, name, signal);
  }

  async #records(zone: string, name: string, signal: AbortSignal): Promise<Record<string, unknown>[]> {
    const query = { DomainName: zone, SubDomain: name, Type: 'TXT', PageSize: String(PAGE) };
    const answer = await this.#call('DescribeSubDomainRecords', query, signal);
    return objects(object(answer.DomainRecords)?.Record);
  }

  /** @param accept the code of an error that means: it is so already */
  async #call(
    action: string,
    parameters: Readonly<Record<string, string>>,
    signal: AbortSignal,
    accept?: string,
  ): Promise<Readonly<Record<string, unknown>>> {
    const url = new URL(this.#endpoint);
    const query = canonicalQuery(parameters);
    const unsigned = {
      host: url.host,
      'x-acs-action': action,
      'x-acs-content-sha256': sha256(''),
      'x-acs-date': new Date().toISOString().replace(/\.\d+/, ''),
      'x-acs-signature-nonce': randomUUID(),
      'x-acs-version': VERSION,
    };
    const authorization = signedBy(this.#keyId, await this.#secret(), { method: 'POST', query, headers: unsigned });
    const headers = { ...unsigned, authorization };
    const { status, body } = await this.#api.call({ method: 'POST', url: `${url.origin}/?${query}`, headers }, signal);
    if (status < 300) return body;
    if (accept !== undefined && body.Code === accept) return {};
    const words = typeof body.Code === 'string' ? `: ${body.Message} (${body.Code})` : '';
    throw this.#api.refused(`it answered ${action} with ${status}${words}`);
  }
}

/** The header `authorization` of a request without a body, whose headers are lower-case and in the order of their names. */
export function signedBy(
  keyId: string,
  secret: string,
  request: { readonly method: string; readonly query: string; readonly headers: Readonly<Record<string, string>> },
): string {
  const names = Object.keys(request.headers).join(';');
  const lines = Object.entries(request.headers).map(([name, value]) => `${name}:${value}\n`);
  const canonical = [request.method, '/', request.query, lines.join(''), names, sha256('')].join('\n');
  const signature = createHmac('sha256', secret)
    .update(`${ALGORITHM}\n${sha256(canonical)}`)
    .digest('hex');
  return `${ALGORITHM} Credential=${keyId},SignedHeaders=${names},Signature=${signature}`;
}

/** By name, each part encoded as RFC 3986 says. */
function canonicalQuery(parameters: Readonly<Record<string, string>>): string {
  return Object.entries(parameters)
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .join('&');
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
