import type { AliasEntry } from '../../aliases/table.ts';
import type { CertificateInfo } from '../../certs/service.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { sleep } from '../../kit/time.ts';
import type { OperationContext } from '../contract.ts';
import type { LiveGateway, OperationsDeps } from '../deps.ts';
import type { ProbeAnswer } from '../probe.ts';

/** How long every process of the gateway may take to show a new certificate, ms. */
const PATIENCE = 5_000;
/** Between two looks, ms. */
const PAUSE = 50;

/**
 * Sees to it that an alias is served: its certificate obtained, in use, and answered under by the gateway's own listener.
 * Null where there is none to obtain. @throws {OperatorError} as the CA refused, or where the listener does not show it.
 */
export async function bringIntoUse(
  deps: OperationsDeps,
  alias: AliasEntry,
  context: OperationContext,
): Promise<CertificateInfo | null> {
  const { certificates, live, config } = deps;
  const step = context.step;
  if (live === null) {
    const what =
      certificates === null
        ? 'tls.mode is off, so it needs no certificate; it is served'
        : alias.certificate
          ? config.tls.mode === 'internal'
            ? 'its certificate is made'
            : 'the certificate is ordered'
          : 'it is served without a certificate';
    step('later', `nothing runs on ${config.dataDir}: ${what} when the gateway starts`);
    return null;
  }
  if (certificates === null) {
    step('cert', 'tls.mode is off: the program in front of the gateway needs a certificate for this name');
    await answered(live, alias.host, null, context);
    return null;
  }
  if (!alias.certificate) {
    step('cert', `none is ordered until: gateway cert renew ${alias.host}`);
    await live.settled();
    return null;
  }
  const info = await certificates.obtain(alias.host, {
    onStep: ({ step: name, message }) => step(name, message),
    signal: context.signal,
  });
  await answered(live, alias.host, info, context);
  return info;
}

/** Waits until the listener answers `/v2/` under this name and, where one is given, under this very certificate. */
export async function answered(
  live: LiveGateway,
  host: string,
  info: CertificateInfo | null,
  context: OperationContext,
): Promise<void> {
  await live.settled();
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = await ask(live, host, context.signal);
    const problem = judge(found, info);
    if (problem === null) {
      const under = info === null ? '' : ` under certificate ${info.serial}`;
      context.step('served', `the gateway answers ${host}/v2/${under}`);
      return;
    }
    if (Date.now() > deadline) {
      throw new OperatorError(
        'NOT_SERVED',
        `the gateway's own listener does not serve ${host} as it should: ${problem}`,
        {
          next: 'see the log of the gateway; gateway doctor looks at its ports and certificates',
        },
      );
    }
    await sleep(PAUSE, context.signal);
  }
}

async function ask(live: LiveGateway, host: string, signal: AbortSignal): Promise<ProbeAnswer | Error> {
  try {
    return await live.probe(host, signal);
  } catch (error) {
    signal.throwIfAborted();
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** What is wrong with the answer, null where nothing is. */
export function judge(found: ProbeAnswer | Error, info: CertificateInfo | null): string | null {
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
