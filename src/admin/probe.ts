import http from 'node:http';
import https from 'node:https';
import { isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** How long the gateway may take to answer itself, ms. */
const PATIENCE = 10_000;

/** What the gateway's own listener answered to `GET /v2/` under this name. */
export interface ProbeAnswer {
  readonly status: number;
  /** Serial number of the certificate it showed, upper-case hex; null over plain HTTP. */
  readonly serial: string | null;
}

/**
 * Asks a listener of this gateway as a client would: a TLS connection with that SNI (RFC 6066 §3), then `GET /v2/`.
 * Trust is not checked here: the caller compares the serial number with the certificate it has just made.
 */
export function probeListener(
  listener: { readonly host: string; readonly port: number; readonly tls: boolean },
  name: string,
  signal: AbortSignal,
): Promise<ProbeAnswer> {
  return new Promise((resolve, reject) => {
    const options = {
      host: listener.host,
      port: listener.port,
      method: 'GET',
      path: '/v2/',
      headers: { host: name, 'user-agent': 'registry-gateway self-check' },
      agent: false,
      signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]),
    } as const;
    const answered = (response: http.IncomingMessage): void => {
      response.resume();
      const socket = response.socket as TLSSocket;
      const serial = listener.tls ? (socket.getPeerX509Certificate()?.serialNumber ?? null) : null;
      resolve({ status: response.statusCode ?? 0, serial });
    };
    const request = listener.tls
      ? https.request({ ...options, rejectUnauthorized: false, servername: isIP(name) === 0 ? name : '' }, answered)
      : http.request(options, answered);
    request.on('error', reject);
    request.end();
  });
}
