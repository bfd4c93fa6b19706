import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { type AskedHost, hostName, hostPort } from './registry-name.ts';

/** Host and target of a request, in whichever form they came, and what HTTP forbids of them. */
export interface Asked extends AskedHost {
  /** Raw, still percent-encoded, never with a query. */
  readonly path: string;
  readonly query: string;
  /** Why the request must be refused with 400, in words; null where HTTP allows it. */
  readonly fault: string | null;
}

/** Longer than any link that a registry gives, and what RFC 9112 §3 recommends as the least. */
const MAX_TARGET = 8_192;
/** A name as DNS has it (RFC 1035 §2.3.4), and a port. */
const MAX_HOST = 255 + ':65535'.length;

/** Visible ASCII without `#`, which no target has (RFC 9112 §3.2), and `\`, which some programs take for a slash. */
const TARGET = /^[\x21\x22\x24-\x5b\x5d-\x7e]*$/;
const BAD_PERCENT = /%(?![0-9a-fA-F]{2})/;
/** RFC 3986 §3.2.2, without percent-encoding, which no host name has; what is in brackets must be an IPv6 address. May be empty. */
const HOST = /^(?:\[([0-9a-fA-F:.]+)\]|[\w.~!$&'()*+,;=-]*)(?::\d*)?$/;

/** @param forwarded the host that a trusted proxy names in `X-Forwarded-Host`; it comes before the request's own */
export function readRequestLine(request: IncomingMessage, forwarded: string | undefined): Asked {
  const { headers } = request;
  const { authority, path, query } = splitTarget(request.url ?? '');
  const host = forwarded ?? authority ?? authorityOf(headers);
  const fault = targetFault(request.url ?? '', authority) ?? hostFault(request, host) ?? framingFault(request);
  const asked = fault === null ? { host: hostName(host), port: hostPort(host) } : { host: '', port: '' };
  return { ...asked, path, query, fault };
}

/** Origin-form and absolute-form (RFC 9112 §3.2); the authority of the latter wins over the Host header. */
function splitTarget(url: string): { authority: string | undefined; path: string; query: string } {
  let rest = url;
  let authority: string | undefined;
  const absolute = url.startsWith('/') ? null : /^https?:\/\/([^/?#]*)/i.exec(url);
  if (absolute !== null) {
    authority = absolute[1];
    rest = url.slice(absolute[0].length);
    if (!rest.startsWith('/')) rest = `/${rest}`;
  }
  const mark = rest.indexOf('?');
  if (mark < 0) return { authority, path: rest, query: '' };
  return { authority, path: rest.slice(0, mark), query: rest.slice(mark + 1) };
}

/** `:authority` of HTTP/2, else the Host header. */
function authorityOf(headers: IncomingHttpHeaders): string | undefined {
  const authority = headers[':authority'] ?? headers.host;
  return typeof authority === 'string' ? authority : undefined;
}

function targetFault(url: string, authority: string | undefined): string | null {
  if (url.length > MAX_TARGET) return `its target is longer than ${MAX_TARGET} bytes`;
  // `*` belongs to OPTIONS, and the authority-form to CONNECT.
  if (!url.startsWith('/') && authority === undefined) return 'its target is neither a path nor an http or https URL';
  if (authority === '') return 'its target names no host';
  if (!TARGET.test(url)) return 'its target has characters that no URL has';
  if (url.includes('%') && BAD_PERCENT.test(url)) return 'its target has a % without two hex digits';
  return null;
}

function hostFault(
  { headers, rawHeaders, httpVersionMajor, httpVersion }: IncomingMessage,
  host: string | undefined,
): string | null {
  // RFC 9112 §3.2; HTTP/1.0 has no Host.
  if (httpVersion === '1.1' && headers.host === undefined) return 'it has no Host header';
  if (httpVersionMajor === 2 && headers.host !== undefined) {
    // RFC 9113 §8.3.1. Of several Host headers Node shows the first.
    const hosts = rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === 'host');
    const authority = headers[':authority'] ?? headers.host;
    if (hosts.some((one) => one !== authority)) return 'its Host header and its authority differ';
  }
  return isHost(headers.host) && isHost(host) ? null : 'its host is no host name or address, or there are several';
}

function isHost(text: string | undefined): boolean {
  if (text === undefined) return true;
  const match = text.length > MAX_HOST ? null : HOST.exec(text);
  return match !== null && (match[1] === undefined || isIP(match[1]) === 6);
}

function framingFault({ httpVersion, headers }: IncomingMessage): string | null {
  if (httpVersion === '0.9') return 'it names no version of HTTP';
  // RFC 9112 §6.1: where such a message ends, every program on its way may see otherwise.
  const faulty = httpVersion === '1.0' && headers['transfer-encoding'] !== undefined;
  return faulty ? 'HTTP/1.0 has no Transfer-Encoding' : null;
}
