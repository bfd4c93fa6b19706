import http from 'node:http';
import https from 'node:https';
import { isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { CertificateInfo } from '../certs/service.ts';
import { bracketed } from '../kit/networks.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { sleep } from '../kit/time.ts';
import type { OperationContext } from './contract.ts';

/** How long the gateway may take to answer a probe, ms. */
const PROBE_TIMEOUT = 10_000;
/** How long every process of the gateway may take to show a new certificate, ms, and the pause between two probes. */
const SERVED_TIMEOUT = 5_000;
const PROBE_PAUSE = 50;

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
      headers: { host: bracketed(name), 'user-agent': 'registry-gateway self-check' },
      agent: false,
      signal: AbortSignal.any([signal, AbortSignal.timeout(PROBE_TIMEOUT)]),
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

/** A gateway whose listener can be asked. */
interface ProbedGateway {
  probe(host: string, signal: AbortSignal): Promise<ProbeAnswer>;
  settled(): Promise<void>;
}

/** Waits until the listener answers `/v2/` under this name and, where one is given, under this very certificate. */
export async function waitUntilServed(
  live: ProbedGateway,
  host: string,
  info: CertificateInfo | null,
  context: OperationContext,
): Promise<void> {
  await live.settled();
  const deadline = performance.now() + SERVED_TIMEOUT;
  for (;;) {
    const found = await probeOnce(live, host, context.signal);
    const problem = servedProblem(found, info);
    if (problem === null) {
      const under = info === null ? '' : ` under certificate ${info.serial}`;
      context.step('served', `the gateway answers ${host}/v2/${under}`);
      return;
    }
    if (performance.now() > deadline) {
      throw new OperatorError(
        'NOT_SERVED',
        `the gateway's own listener does not serve ${host} as it should: ${problem}`,
        {
          next: 'see the log of the gateway; gateway doctor looks at its ports and certificates',
        },
      );
    }
    await sleep(PROBE_PAUSE, context.signal);
  }
}

async function probeOnce(live: ProbedGateway, host: string, signal: AbortSignal): Promise<ProbeAnswer | Error> {
  try {
    return await live.probe(host, signal);
  } catch (error) {
    signal.throwIfAborted();
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** What is wrong with the answer, null where nothing is. */
export function servedProblem(found: ProbeAnswer | Error, info: CertificateInfo | null): string | null {
  if (found instanceof Error) return found.message;
  if (info?.serial != null && canonicalSerial(found.serial ?? '') !== canonicalSerial(info.serial)) {
    return `it shows certificate ${found.serial ?? 'none'} in place of ${info.serial}`;
  }
  // 403 and 429: the gateway's own rules for clients keep itself out; the name is served all the same.
  return [200, 401, 403, 429].includes(found.status) ? null : `it answers ${found.status} to /v2/`;
}

/** Serial numbers are written with and without colons, leading zeros and capitals. */
function canonicalSerial(serial: string): string {
  return serial.replaceAll(':', '').toLowerCase().replace(/^0+/, '');
}
