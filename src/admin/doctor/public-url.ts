import http from 'node:http';
import https from 'node:https';
import { renderVia } from '../../kit/via.ts';
import type { OperationsDeps } from '../operation.ts';
import type { Finding } from './finding.ts';
import type { Names } from './resolver.ts';

/** What stands before the gateway answers at once, ms. */
const ANSWER_TIMEOUT = 5_000;

/**
 * Whether clients that are told `publicUrl` come to this gateway, through what stands before it: with a certificate that they trust, and with their
 * addresses and paths intact.
 */
export async function checkPublicUrl(deps: OperationsDeps, names: Names, signal: AbortSignal): Promise<Finding[]> {
  const { config, live, pseudonym } = deps;
  const found: Finding[] = [];
  if (config.tls.mode === 'off' && config.trustedProxies.length === 0 && live !== null) {
    found.push({
      name: 'publicUrl proxies',
      level: 'warn',
      message:
        'tls.mode is off and trustedProxies is empty: all clients have the address of the program in front, in limits and in the log',
      next: 'name its address or network in trustedProxies, and let it send X-Forwarded-For, -Proto and -Host',
    });
  }
  if (config.publicUrl === null) return found;
  const url = new URL(config.publicUrl);
  const name = `publicUrl ${url.host}`;
  if (!names.canResolve(url.hostname)) {
    const message = 'cannot be looked up: no DNS server answers';
    return [...found, { name, level: 'fail', message, next: 'start the DNS server', because: 'name' }];
  }
  if (live === null) return found;
  try {
    const plain = await ask(url, {}, signal);
    if (plain.version === undefined) {
      const message = `${url.origin}/v2/ is answered (${plain.status}) by something that is no registry: what stands there does not pass requests on to this gateway`;
      const next = `let it pass all of ${url.host} on to this gateway (deploy/README.md has it for nginx and Caddy), or correct publicUrl`;
      return [...found, { name, level: 'fail', message, next }];
    }
    const looped = await ask(url, { via: renderVia([pseudonym]) }, signal);
    if (looped.status === 508) {
      return [
        ...found,
        {
          name,
          level: 'ok',
          message: `${url.origin}/v2/ comes to this gateway, with a certificate that is trusted here`,
        },
      ];
    }
    const message = `${url.origin}/v2/ is answered by a registry (${plain.status}), and it cannot be told whether that is this gateway: the header Via does not come through, or another one answers`;
    return [
      ...found,
      { name, level: 'warn', message, next: 'look into the log of this gateway whether a request to it shows up' },
    ];
  } catch (error) {
    return [...found, { name, level: 'fail', ...unreachable(url, error as NodeJS.ErrnoException, config.tls.mode) }];
  }
}

function unreachable(
  url: URL,
  { code, message }: NodeJS.ErrnoException,
  mode: string,
): { message: string; next: string } {
  const tls = code !== undefined && /CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(code);
  if (tls && mode !== 'internal') {
    return {
      message: `clients refuse the certificate that ${url.host} shows: ${message}`,
      next: 'renew or correct it at the program that terminates TLS there (the whole chain, the right name)',
    };
  }
  if (tls) {
    return {
      message: `${url.host} shows a certificate that this machine does not trust: ${message}`,
      next: "trust this gateway's own CA where clients run (gateway client KIND says how), or put a public certificate there",
    };
  }
  return {
    message: `${url.origin} cannot be reached from here: ${message}`,
    next: 'start what stands there, let its port through, or correct publicUrl',
  };
}

function ask(
  url: URL,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<{ status: number; version: string | undefined }> {
  return new Promise((resolve, reject) => {
    const within = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT)]);
    const send = url.protocol === 'https:' ? https.get : http.get;
    const call = send(new URL('/v2/', url), { headers, agent: false, signal: within }, (response) => {
      response.resume();
      const version = response.headers['docker-distribution-api-version'];
      resolve({ status: response.statusCode ?? 0, version: version === undefined ? undefined : String(version) });
    });
    call.on('error', (error) =>
      reject(within.aborted ? new Error(`no answer within ${ANSWER_TIMEOUT / 1000} s`) : error),
    );
  });
}
