import type { IncomingMessage } from 'node:http';
import { type ApiRecord, type ApiReply, DnsApi } from './dns-api.ts';

/** Of a page of zones, where none is asked for. */
const ZONES_PAGE = 20;
/** RFC 1035 length of one string in a TXT record. */
const LONGEST = 255;

/** Cloudflare's API v4: envelopes, bearer tokens, zones by their ids. https://developers.cloudflare.com/api/resources/dns/ */
export class CloudflareApi extends DnsApi {
  readonly token = 'v1tok_0123456789abcdefghijABCDEFGHIJ0123456';
  /** Sees zones, and may not change what is in them. */
  readonly reader = 'v1tok_readsalone89abcdefghijABCDEFGHIJ01234';
  /** Zones of the same name that another account has begun with and never finished. */
  pending = 0;

  protected answer(request: IncomingMessage, body: string): ApiReply {
    const { authorization = '' } = request.headers;
    const given = /^Bearer ([A-Za-z0-9_-]{40,})$/.exec(authorization)?.[1];
    if (given === undefined) {
      const chain = [{ code: 6111, message: 'Invalid format for Authorization header' }];
      return failed(400, 6003, 'Invalid request headers', { error_chain: chain });
    }
    if (given !== this.token && given !== this.reader) return failed(403, 9109, 'Invalid access token');
    const url = new URL(request.url ?? '/', 'http://api');
    const [, zoneId, , recordId] = url.pathname.split('/').slice(1).map(decodeURIComponent);
    const query = url.searchParams;
    if (url.pathname === '/zones' && request.method === 'GET') return this.#listZones(query);
    const zone = [...this.zones.keys()].find((name) => idOf(name) === zoneId);
    if (zone === undefined || !url.pathname.startsWith(`/zones/${zoneId}/dns_records`)) {
      return failed(404, 7003, `Could not route to ${url.pathname}, perhaps your object identifier is invalid?`);
    }
    if (given === this.reader && request.method !== 'GET') return failed(403, 10000, 'Authentication error');
    const records = this.zones.get(zone) ?? [];
    if (recordId === undefined && request.method === 'GET') return listRecords(records, query);
    if (recordId === undefined && request.method === 'POST') return this.#create(zone, records, request, body);
    if (recordId !== undefined && request.method === 'DELETE') {
      return this.drop(recordId) ? ok({ id: recordId }) : failed(404, 81044, 'Record does not exist.');
    }
    return failed(405, 10405, 'Method not allowed');
  }

  #listZones(query: URLSearchParams): ApiReply {
    const zones = [...this.zones.keys()].flatMap((name) => [
      ...Array.from({ length: this.pending }, (_, n) => ({ id: `pending${n}`, name, status: 'pending' })),
      { id: idOf(name), name, status: 'active' },
    ]);
    return paged(
      zones.filter(({ name }) => query.get('name') === null || name === query.get('name')),
      query,
      ZONES_PAGE,
    );
  }

  #create(zone: string, records: ApiRecord[], { headers }: IncomingMessage, body: string): ApiReply {
    if (headers['content-type'] !== 'application/json') return failed(400, 9207, 'Request body is invalid.');
    const { type, name, content, ttl } = JSON.parse(body) as Record<string, unknown>;
    if (type !== 'TXT') return failed(400, 9004, 'Invalid DNS record type');
    if (typeof name !== 'string' || name === '') return failed(400, 9000, 'DNS name is invalid.');
    if (typeof ttl !== 'number' || (ttl !== 1 && (ttl < 60 || ttl > 86_400))) {
      return failed(400, 9021, 'Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.');
    }
    const value = typeof content === 'string' ? /^"([^"]*)"$/.exec(content)?.[1] : undefined;
    if (value === undefined || value.length > LONGEST) return failed(400, 9101, 'Content for TXT record is invalid.');
    // A name outside the zone is taken for one relative to it.
    const whole = name === zone || name.endsWith(`.${zone}`) ? name : `${name}.${zone}`;
    if (records.some((record) => record.name === whole && record.value === value)) {
      return failed(400, 81058, 'An identical record already exists.');
    }
    const record = { id: this.id(), name: whole, value, ttl };
    records.push(record);
    return ok(shown(record));
  }
}

function idOf(zone: string): string {
  return Buffer.from(zone).toString('hex').padEnd(32, '0').slice(0, 32);
}

function listRecords(records: readonly ApiRecord[], query: URLSearchParams): ApiReply {
  const [type, name] = [query.get('type'), query.get('name')];
  const found = records.filter((record) => (type ?? 'TXT') === 'TXT' && (name === null || record.name === name));
  return paged(found.map(shown), query, 100);
}

function shown({ id, name, value, ttl }: ApiRecord) {
  return { id, name, type: 'TXT', content: `"${value}"`, proxied: false, ttl };
}

function paged(all: readonly object[], query: URLSearchParams, standard: number): ApiReply {
  const [page, size] = [Number(query.get('page') ?? 1), Number(query.get('per_page') ?? standard)];
  const result = all.slice((page - 1) * size, page * size);
  const info = { page, per_page: size, count: result.length, total_count: all.length };
  return { status: 200, body: { success: true, errors: [], messages: [], result, result_info: info } };
}

function ok(result: unknown): ApiReply {
  return { status: 200, body: { success: true, errors: [], messages: [], result } };
}

function failed(status: number, code: number, message: string, more: object = {}): ApiReply {
  return { status, body: { success: false, errors: [{ code, message, ...more }], messages: [], result: null } };
}
