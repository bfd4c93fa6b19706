import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { remediation } from '../../certs/advice.ts';
import { IssuerError, shortType } from '../../certs/issuer.ts';
import type { CertificateInfo } from '../../certs/service.ts';
import { describeAuthorities, parseAuthorities } from '../../kit/authorities.ts';
import { formatSpan } from '../../kit/time.ts';
import type { OperationsDeps } from '../operation.ts';
import type { Finding } from './finding.ts';
import type { Names } from './resolver.ts';
import type { Surroundings } from './surroundings.ts';

const DAY = 86_400_000;
/** A certificate that nobody renews (imported, or one of an authority) is worth a word so long before its end. */
const SOON = 21 * DAY;
/** The share of a certificate's life that is left when its renewal must have succeeded: renewals begin at a third. */
const OVERDUE = 1 / 6;

type CertificatesDeps = Pick<OperationsDeps, 'certificates' | 'live' | 'config'>;

/** Every certificate by its state and by what is left of it, and the warnings of the certificate service. */
export function checkCertificates({ certificates, live }: CertificatesDeps, { now }: Surroundings): Finding[] {
  if (certificates === null) {
    return [{ name: 'certificates', level: 'ok', message: 'tls.mode is off: the program in front has them' }];
  }
  const rows = certificates.list().map((info) => checkCertificate(info, live !== null, now()));
  const warnings = certificates
    .warnings()
    .map(
      (message): Finding => ({ name: 'certificates', level: 'warn', message, next: 'gateway cert ls shows them all' }),
    );
  const root = certificates.root();
  return [
    ...rows,
    ...warnings,
    ...(root === null ? [] : judgeAuthority("this gateway's own CA (ca.crt)", root.pem, now(), OWN_CA)),
  ];
}

const OWN_CA =
  'plan its successor: once it has ended no client trusts this gateway; move ca.crt and ca.key away and start again, then give clients the new ca.crt';

function checkCertificate(info: CertificateInfo, running: boolean, now: number): Finding {
  const name = `certificate ${info.host}`;
  // The internal CA signs a leaf when it is first asked for; until then there are no dates.
  const until = info.notAfter === null ? 'and signed when it is first asked for' : `until ${info.notAfter}`;
  const said = info.lastError === null ? '' : `; last error: ${info.lastError.type}: ${info.lastError.detail}`;
  const again = info.nextAttempt === null ? '' : `; it is tried again at ${info.nextAttempt}`;
  const next = `see what to do: gateway cert explain ${info.host}`;
  if (info.state === 'valid') {
    if (info.notBefore !== null && Date.parse(info.notBefore) > now) {
      const message = `is not valid before ${info.notBefore}: the clock of this machine is behind, or was ahead when it was made`;
      return {
        name,
        level: 'fail',
        message,
        next: 'set the clock (see clock); then: gateway cert renew HOST',
        because: 'certificate dates',
      };
    }
    const left = info.notAfter === null ? Number.POSITIVE_INFINITY : Date.parse(info.notAfter) - now;
    if (info.lastError !== null) {
      const message = `valid ${until} (${formatSpan(left)} left), but its renewal fails${said}${again}`;
      return { name, level: left < 2 * DAY ? 'fail' : 'warn', message, next };
    }
    const life =
      info.notBefore === null || info.notAfter === null
        ? Number.POSITIVE_INFINITY
        : Date.parse(info.notAfter) - Date.parse(info.notBefore);
    if (left < life * OVERDUE || (info.nextAttempt === null && left < SOON && left < life / 3)) {
      const message = `ends in ${formatSpan(left)} (${info.notAfter}), and no renewal of it has succeeded${again}`;
      const renew = `renew it now: gateway cert renew ${info.host}; an imported one: gateway cert import CERT KEY`;
      return {
        name,
        level: left < 2 * DAY ? 'fail' : 'warn',
        message,
        next: running ? renew : 'start the gateway, which renews it: gateway serve',
      };
    }
    return { name, level: 'ok', message: `valid ${until}, from ${info.issuer ?? 'an unknown issuer'}` };
  }
  if (info.state === 'on demand')
    return { name, level: 'ok', message: 'is ordered when a client first asks for this host' };
  if (info.state === 'pending' && info.lastError === null) {
    const message = running ? `is being obtained${again}` : 'is obtained when the gateway runs';
    return {
      name,
      level: 'warn',
      message,
      next: running ? next : 'start the gateway: gateway serve',
      because: 'same: pending',
    };
  }
  return { name, level: 'fail', message: `is ${info.state}${said}${again}`, next, because: causeOf(info) };
}

/** Problems that a name or a port which does not lead here is the cause of (RFC 8555 §6.7). */
const NOT_HERE = new Set(['selfCheck', 'connection', 'dns', 'incorrectResponse', 'tls', 'unauthorized']);

function causeOf({ host, lastError }: CertificateInfo): string {
  if (lastError === null) return '';
  const type = shortType(lastError.type);
  if (type === 'network' || type === 'timeout') return 'ca';
  // What it would be told in the same words of other hosts is told once.
  return NOT_HERE.has(type) ? `dns ${host}` : `same: ${type} ${lastError.detail.replaceAll(host, '')}`;
}

/** Whether every CA can be asked now, before a renewal needs it. */
export async function checkIssuers(
  { certificates, config }: CertificatesDeps,
  names: Names,
  signal: AbortSignal,
): Promise<{ findings: Finding[]; skews: number[] }> {
  const skews: number[] = [];
  if (certificates === null || config.tls.mode !== 'acme') return { findings: [], skews };
  const checked = certificates.issuers().map(async (issuer): Promise<Finding> => {
    const name = `ca ${issuer.name}`;
    const host = new URL(issuer.directory).hostname.replace(/^\[|\]$/g, '');
    if (!names.canResolve(host)) {
      const message = `${issuer.directory} cannot be looked up: no DNS server answers`;
      return { name, level: 'fail', message, next: 'start the DNS server', because: 'name', outward: true };
    }
    const problem = await issuer.check(signal);
    const skew = issuer.clockSkew();
    if (skew !== null) skews.push(-skew);
    if (problem === null) return { name, level: 'ok', message: `${issuer.directory} answers`, outward: isPublic(host) };
    const { type, detail, next } = problem;
    const message = `${issuer.directory} gives no directory, so that no certificate can be had or renewed there: ${detail}`;
    // What it answered with shows that there is a way to it.
    const because = type === 'network' || type === 'timeout' ? { because: 'no answer' } : {};
    return { name, level: 'fail', message, next, outward: isPublic(host), ...because };
  });
  return { findings: await Promise.all(checked), skews };
}

/** Whether what answers DNS-01 challenges would take a record now; it leaves none. */
export async function checkDnsProvider(
  { certificates, config }: CertificatesDeps,
  signal: AbortSignal,
): Promise<Finding[]> {
  const provider = certificates?.dnsProvider() ?? null;
  if (provider === null || !config.acme.challenges.includes('dns-01')) return [];
  const name = `dns-01 ${provider.name}`;
  try {
    const place = await provider.check(config.domain, signal);
    return [{ name, level: 'ok', message: `may put records at ${place.name} in the zone ${place.zone}` }];
  } catch (error) {
    if (!(error instanceof IssuerError)) throw error;
    return [{ name, level: 'fail', message: error.detail, next: remediation(error.type) }];
  }
}

/** A CA or registry on this machine says nothing of the way out. */
export function isPublic(host: string): boolean {
  return host !== 'localhost' && !host.endsWith('.localhost') && !(isIP(host) !== 0 && /^(127\.|::1$)/.test(host));
}

/** Authorities that the operator named, in files and in the table: what ends soon, or cannot be read. */
export async function checkAuthorities({ config, table }: OperationsDeps, { now }: Surroundings): Promise<Finding[]> {
  const files = [
    ['upstream.caFile', config.upstream.caFile],
    ...(config.tls.mode === 'acme' ? config.acme.issuers : []).map(
      ({ caFile }) => ['acme.issuers[].caFile', caFile] as const,
    ),
  ] as const;
  const inFiles = files.map(async ([key, file]): Promise<Finding[]> => {
    if (file === null) return [];
    const next = `put the authority's present certificate there (PEM), or correct ${key}`;
    try {
      return judgeAuthority(`${key} ${file}`, parseAuthorities(await readFile(file, 'utf8')), now(), next);
    } catch (error) {
      return [{ name: `authority ${key}`, level: 'fail', message: `${file}: ${(error as Error).message}`, next }];
    }
  });
  const inTable = [...table.snapshot().registries.values()].flatMap(({ host, ca }) =>
    ca === null
      ? []
      : judgeAuthority(
          `registry ${host} (--ca)`,
          ca,
          now(),
          `give it its present one: gateway registry set ${host} --ca FILE`,
        ),
  );
  return [...(await Promise.all(inFiles)).flat(), ...inTable];
}

/** @param pem as `parseAuthorities` returns it */
function judgeAuthority(what: string, pem: string, now: number, next: string): Finding[] {
  const all = describeAuthorities(pem).map(({ subject, notAfter }) => ({
    subject,
    left: Date.parse(notAfter) - now,
    notAfter,
  }));
  const ill = all.filter(({ left }) => left < SOON);
  return ill.map(({ subject, left, notAfter }) => {
    const over = left < 0;
    // Bundles keep old authorities beside their successors.
    const level = over && ill.length === all.length ? 'fail' : 'warn';
    const message = over ? `${subject} ran out on ${notAfter}` : `${subject} ends in ${formatSpan(left)} (${notAfter})`;
    return { name: `authority ${what}`, level, message, next };
  });
}
