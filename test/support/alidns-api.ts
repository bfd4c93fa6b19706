import { createHash, createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { type ApiReply, DnsApi } from './dns-api.ts';

const ALGORITHM = 'ACS3-HMAC-SHA256';
/** How far the date of a request may be off, ms. */
const CLOCKS = 15 * 60_000;
const LEAST_TTL = 600;
const LARGEST_PAGE = 500;
const NEEDED = ['host', 'x-acs-action', 'x-acs-content-sha256', 'x-acs-date', 'x-acs-signature-nonce', 'x-acs-version'];

/** Alibaba Cloud DNS (2015-01-09) with request signatures V3, checked over what was sent. https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature */
export class AlidnsApi extends DnsApi {
  readonly keyId = 'LTAI5tTestKeyOfNobody';
  readonly secret = 'a7Secret0fNobodyXyzzy0123456789';
  readonly #nonces = new Set<string>();

  protected answer(request: IncomingMessage, body: string): ApiReply {
    const url = new URL(request.url ?? '/', 'http://api');
    const problem = this.#signatureProblem(request, url, body);
    if (problem !== null) return problem;
    const { headers } = request;
    if (headers['x-acs-version'] !== '2015-01-09')
      return failed(400, 'InvalidVersion', 'Specified version is not valid.');
    const parameters = Object.fromEntries(url.searchParams);
    switch (headers['x-acs-action']) {
      case 'AddDomainRecord':
        return this.#add(parameters);
      case 'DescribeSubDomainRecords':
        return this.#describe(parameters);
      case 'DeleteDomainRecord':
        return this.drop(parameters.RecordId ?? '')
          ? ok({ RecordId: parameters.RecordId })
          : failed(400, 'DomainRecordNotBelongToUser', 'The domain record does not belong to this user.');
      default:
        return failed(404, 'InvalidAction.NotFound', 'Specified api is not found, please check your url and method.');
    }
  }

  #add({ DomainName, RR, Type, Value, TTL }: Record<string, string | undefined>): ApiReply {
    const records = this.zones.get(DomainName ?? '');
    if (records === undefined)
      return failed(400, 'IncorrectDomainUser', 'The domain name does not belong to this user.');
    if (RR === undefined || RR === '' || Value === undefined || Type !== 'TXT') {
      return failed(400, 'MissingParameter', 'The input parameters that are mandatory for this request are missing.');
    }
    if (Number(TTL) < LEAST_TTL) return failed(400, 'QuotaExceeded.TTL', 'The TTL is too small for your edition.');
    const name = RR === '@' ? (DomainName ?? '') : `${RR}.${DomainName}`;
    if (records.some((record) => record.name === name && record.value === Value)) {
      return failed(400, 'DomainRecordDuplicate', 'The DNS record already exists.');
    }
    const record = { id: this.id(), name, value: Value, ttl: Number(TTL) };
    records.push(record);
    return ok({ RecordId: record.id });
  }

  #describe({ DomainName, SubDomain, Type, PageSize = '20' }: Record<string, string | undefined>): ApiReply {
    if (SubDomain === undefined) return failed(400, 'MissingSubDomain', 'SubDomain is mandatory for this action.');
    if (Number(PageSize) > LARGEST_PAGE) return failed(400, 'InvalidPageSize', 'The page size is too large.');
    const records = this.zones.get(DomainName ?? '');
    if (records === undefined)
      return failed(400, 'InvalidDomainName.NoExist', 'The specified domain name does not exist.');
    const found = records.filter(({ name }) => name === SubDomain && (Type ?? 'TXT') === 'TXT');
    const shown = found.map(({ id, value, ttl }) => ({ RecordId: id, Type: 'TXT', Value: value, TTL: ttl }));
    const Record = shown.slice(0, Number(PageSize));
    return ok({ TotalCount: found.length, PageNumber: 1, PageSize: Number(PageSize), DomainRecords: { Record } });
  }

  /** By the documentation's steps, over the request as it came. */
  #signatureProblem({ method = '', headers }: IncomingMessage, url: URL, body: string): ApiReply | null {
    const shape = /^ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})$/;
    const [, keyId, signedHeaders = '', signature] = shape.exec(headers.authorization ?? '') ?? [];
    if (signature === undefined) {
      return failed(400, 'MissingAuthorization', 'The Authorization header is missing or not of the signature V3.');
    }
    const signed = signedHeaders.split(';');
    const missing = NEEDED.find((name) => headers[name] === undefined || !signed.includes(name));
    if (missing !== undefined) return failed(400, 'MissingParameter', `${missing} is mandatory for this action.`);
    if (keyId !== this.keyId) {
      return failed(404, 'InvalidAccessKeyId.NotFound', 'Specified access key is not found.');
    }
    const date = String(headers['x-acs-date']);
    if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(date)) {
      return failed(400, 'InvalidTimeStamp.Format', 'Specified time stamp or date value is not well formatted.');
    }
    if (Math.abs(Date.now() - Date.parse(date)) > CLOCKS) {
      return failed(400, 'InvalidTimeStamp.Expired', 'Specified time stamp or date value is expired.');
    }
    const hash = sha256(body);
    const values = new Map(signed.map((name) => [name, String(headers[name] ?? '')]));
    const expected = acs3Signature(
      { method, path: url.pathname, query: [...url.searchParams], headers: values, hash },
      this.secret,
    );
    if (headers['x-acs-content-sha256'] !== hash || signature !== expected) {
      return failed(400, 'SignatureDoesNotMatch', 'Specified signature does not match our calculation.');
    }
    const nonce = String(headers['x-acs-signature-nonce']);
    if (this.#nonces.has(nonce))
      return failed(400, 'SignatureNonceUsed', 'Specified signature nonce was used already.');
    this.#nonces.add(nonce);
    return null;
  }
}

/** `hash`: SHA-256 of the body, hex. */
export function acs3Signature(
  request: {
    readonly method: string;
    readonly path: string;
    readonly query: readonly (readonly [string, string])[];
    readonly headers: ReadonlyMap<string, string>;
    readonly hash: string;
  },
  secret: string,
): string {
  const names = [...request.headers.keys()].sort();
  const query = request.query
    .map(([name, value]) => [percent(name), percent(value)] as const)
    .sort(([one], [other]) => Buffer.compare(Buffer.from(one), Buffer.from(other)))
    .map((pair) => pair.join('='));
  let canonical = `${request.method}\n${request.path}\n${query.join('&')}\n`;
  for (const name of names) canonical += `${name.toLowerCase()}:${request.headers.get(name)?.trim()}\n`;
  canonical += `\n${names.join(';')}\n${request.hash}`;
  return createHmac('sha256', secret)
    .update(`${ALGORITHM}\n${sha256(canonical)}`)
    .digest('hex');
}

/** RFC 3986: all but its unreserved characters, byte by byte. */
function percent(value: string): string {
  return [...Buffer.from(value)]
    .map((byte) => {
      const char = String.fromCharCode(byte);
      return /[A-Za-z0-9._~-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');
}

function sha256(value: string): string {
  return createHash('sha256').update(value).digest('hex');
}

function ok(body: object): ApiReply {
  return { status: 200, body: { RequestId: '536E9CAD-DB30-4647-AC87-AA5CC38C5382', ...body } };
}

function failed(status: number, Code: string, Message: string): ApiReply {
  return { status, body: { RequestId: '536E9CAD-DB30-4647-AC87-AA5CC38C5382', HostId: 'alidns', Code, Message } };
}
