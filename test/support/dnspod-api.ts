import type { IncomingMessage } from 'node:http';
import { type ApiReply, DnsApi } from './dns-api.ts';

/** DNSPod's API by token: forms in, status 200 and a code out. https://docs.dnspod.cn/api/ */
export class DnspodApi extends DnsApi {
  readonly tokenId = '13490';
  readonly token = '6b5976c68aba5b14a0558b77c17c3932';

  protected answer(request: IncomingMessage, body: string): ApiReply {
    const { headers, method, url } = request;
    // `program/version`: those without one are barred.
    if (!/^[\w -]+\/[\d.]+/.test(headers['user-agent'] ?? '')) return said('-4', 'User-Agent is missing');
    if (method !== 'POST') return said('2', 'Only POST is allowed');
    if (headers['content-type'] !== 'application/x-www-form-urlencoded') return said('6', 'Parameters are missing');
    const form = Object.fromEntries(new URLSearchParams(body));
    if (form.format !== 'json') return { status: 200, body: '<?xml version="1.0" encoding="UTF-8"?><dnspod/>' };
    if (form.login_token !== `${this.tokenId},${this.token}`) return said('-1', 'Login failed');
    const records = this.zones.get(form.domain ?? '');
    switch (url) {
      case '/Record.Create':
        return records === undefined ? said('6', 'Domain ID error') : this.#create(form);
      case '/Record.List':
        return records === undefined ? said('6', 'Domain ID error') : this.#list(form);
      case '/Record.Remove':
        if (records === undefined) return said('6', 'Domain ID error');
        return this.drop(form.record_id ?? '') ? done() : said('8', 'Record ID error');
      default:
        return said('3', 'Unknown error');
    }
  }

  #create(form: Record<string, string>): ApiReply {
    const { domain = '', sub_domain: label = '@', record_type: type, value = '', ttl } = form;
    if (type !== 'TXT') return said('27', 'Invalid record type');
    if (form.record_line_id !== '0' && form.record_line !== '默认') return said('26', 'Invalid record line');
    if (label === '' || label.endsWith('.')) return said('22', 'Invalid sub domain');
    if (value === '') return said('34', 'Invalid record value');
    const records = this.zones.get(domain) ?? [];
    const name = label === '@' ? domain : `${label}.${domain}`;
    if (records.some((record) => record.name === name && record.value === value)) {
      return said('104', 'Record already exists');
    }
    const record = { id: this.id(), name, value, ttl: Number(ttl) };
    records.push(record);
    return done({ record: { id: record.id, name: label, status: 'enabled' } });
  }

  #list({ domain = '', sub_domain: label, record_type: type }: Record<string, string>): ApiReply {
    const name = label === undefined ? null : label === '@' ? domain : `${label}.${domain}`;
    const found = (this.zones.get(domain) ?? []).filter((one) => name === null || one.name === name);
    if (found.length === 0 || (type ?? 'TXT') !== 'TXT') return said('10', 'No records on the list');
    return done({
      records: found.map(({ id, value, ttl }) => ({ id, name: label, type: 'TXT', value, ttl: `${ttl}` })),
    });
  }
}

function done(more: object = {}): ApiReply {
  const status = { code: '1', message: 'Action completed successful', created_at: '2026-01-01 00:00:00' };
  return { status: 200, body: { status, ...more } };
}

function said(code: string, message: string): ApiReply {
  return { status: 200, body: { status: { code, message, created_at: '2026-01-01 00:00:00' } } };
}
