import http from 'node:http';
import https from 'node:https';
import { isIP } from 'node:net';
import { bracketed } from '../../kit/networks.ts';
import { renderVia } from '../../kit/via.ts';

/** A host that is there answers at once, ms. */
const ANSWER_TIMEOUT = 4_000;

/** Who answers at an address. */
export type Answerer =
  /** This very gateway. */
  | { readonly kind: 'own' }
  /** Something else, or another gateway, in words. */
  | { readonly kind: 'other'; readonly what: string }
  /** TLS was refused for this name: as a gateway does while it has no certificate for it. */
  | { readonly kind: 'no certificate' }
  | { readonly kind: 'nobody'; readonly why: string };

/** OpenSSL's words for the alert by which a gateway says that it has no certificate for a name (RFC 6066 §3). */
const NO_CERTIFICATE = /unrecognized name/;

/**
 * Asks who is at an address by a request that this gateway alone refuses: one which, as its `Via` says, has passed this gateway before (508). So it
 * takes no token that has to be stored first, and no access rule is in its way.
 */
export function whoAnswers(
  address: string,
  port: number,
  about: { readonly host: string; readonly tls: boolean; readonly path: string; readonly pseudonym: string },
  signal: AbortSignal,
): Promise<Answerer> {
  const { host, tls, path, pseudonym } = about;
  return new Promise((resolve) => {
    const options = {
      host: address,
      port,
      path,
      headers: { host: bracketed(host), via: renderVia([pseudonym]), 'user-agent': 'registry-gateway doctor' },
      agent: false,
      signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT)]),
    } as const;
    const answered = (response: http.IncomingMessage): void => {
      response.resume();
      resolve(response.statusCode === 508 ? { kind: 'own' } : { kind: 'other', what: describe(response) });
    };
    const call = tls
      ? https.request({ ...options, rejectUnauthorized: false, servername: isIP(host) === 0 ? host : '' }, answered)
      : http.request(options, answered);
    call.on('error', (error: NodeJS.ErrnoException) => {
      if (NO_CERTIFICATE.test(error.message)) resolve({ kind: 'no certificate' });
      else resolve({ kind: 'nobody', why: inWords(error) });
    });
    call.end();
  });
}

function describe({ statusCode, headers }: http.IncomingMessage): string {
  const server = String(headers.server ?? '')
    .replace(/[^\x20-\x7e]/g, '')
    .slice(0, 60);
  const by = server === '' ? '' : ` by ${server}`;
  if (headers['docker-distribution-api-version'] !== undefined)
    return `another registry or gateway (${statusCode}${by})`;
  return `another program (${statusCode}${by})`;
}

function inWords({ code, name, message }: NodeJS.ErrnoException): string {
  if (name === 'TimeoutError' || name === 'AbortError') return `nothing answers (${ANSWER_TIMEOUT / 1000} s)`;
  if (code === 'ECONNREFUSED') return 'connections are refused';
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH') return 'there is no route to it from here';
  if (code === 'ECONNRESET') return 'the connection is broken off';
  if (code?.includes('WRONG_VERSION') || code?.includes('PACKET_LENGTH')) return 'what is there does not speak TLS';
  return code ?? message;
}
