import type { CertificateInfo } from '../../certs/service.ts';
import type { OperationsDeps } from '../deps.ts';
import type { Check } from '../rows.ts';

/** Every certificate by its state, and what the certificates' keeper itself wants known (clock skew, say). */
export function* checkCertificates(deps: OperationsDeps): Generator<Check> {
  const { certificates, live } = deps;
  if (certificates === null) {
    yield { name: 'certificates', level: 'ok', message: 'tls.mode is off: the program in front has them' };
    return;
  }
  for (const info of certificates.list()) yield checkCertificate(info, live !== null);
  for (const warning of certificates.warnings()) {
    yield { name: 'certificates', level: 'warn', message: warning, next: 'gateway cert ls shows them all' };
  }
}

function checkCertificate(info: CertificateInfo, running: boolean): Check {
  const name = `certificate ${info.host}`;
  // A leaf of the internal CA that nobody has asked for yet has no dates.
  const until = info.notAfter === null ? 'and signed when it is first asked for' : `until ${info.notAfter}`;
  if (info.state === 'valid' && info.lastError === null) {
    return { name, level: 'ok', message: `valid ${until}, from ${info.issuer ?? 'an unknown issuer'}` };
  }
  const said = info.lastError === null ? '' : `; last error: ${info.lastError.type}: ${info.lastError.detail}`;
  const again = info.nextAttempt === null ? '' : `; it is tried again at ${info.nextAttempt}`;
  const next = `see what to do: gateway cert explain ${info.host}`;
  if (info.state === 'valid')
    return { name, level: 'warn', message: `valid ${until}, but its renewal fails${said}${again}`, next };
  if (info.state === 'pending' && info.lastError === null) {
    const message = running ? `is being obtained${again}` : 'is obtained when the gateway runs';
    return { name, level: 'warn', message, next: running ? next : 'start the gateway: gateway serve' };
  }
  return { name, level: 'fail', message: `is ${info.state}${said}${again}`, next };
}
