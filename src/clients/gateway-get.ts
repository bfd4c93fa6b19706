import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isUnknownIssuer, trusting } from '../kit/authorities.ts';
import { readBounded } from '../kit/http.ts';

export interface GatewayAnswer {
  readonly status: number;
  /** `Docker-Content-Digest`; null where there is none. */
  readonly digest: string | null;
  readonly text: string;
}

export interface GatewayQuestion {
  readonly headers?: Readonly<Record<string, string>>;
  /** PEM of authorities that are trusted beside the machine's own; null for none. */
  readonly ca: string | null;
  /** ms without a byte. */
  readonly patience: number;
  /** Longest body that is taken, bytes. */
  readonly limit: number;
  readonly signal: AbortSignal;
}

/** A GET as a client on this machine would send it. @throws {Error} in words, where there is no whole answer */
export async function getFromGateway(url: URL, question: GatewayQuestion): Promise<GatewayAnswer> {
  const { headers, ca, patience, limit, signal } = question;
  const request = url.protocol === 'http:' ? httpRequest : httpsRequest;
  const trust = url.protocol === 'http:' ? {} : { secureContext: trusting(...(ca === null ? [] : [ca])) };
  try {
    return await new Promise((resolve, reject) => {
      const options = { headers: { ...headers }, signal, timeout: patience, agent: false, ...trust };
      const sent = request(url, options, (response) => {
        const digest = response.headers['docker-content-digest'];
        readBounded(response, limit).then((bytes) => {
          resolve({
            status: response.statusCode ?? 0,
            digest: typeof digest === 'string' ? digest : null,
            text: bytes.toString(),
          });
        }, reject);
      });
      sent.on('timeout', () => sent.destroy(new Error(`no answer within ${patience / 1000} s`)));
      sent.on('error', reject);
      sent.end();
    });
  } catch (error) {
    if (!isUnknownIssuer(error)) throw error;
    throw new Error('its certificate is signed by an authority that this machine does not know', { cause: error });
  }
}
