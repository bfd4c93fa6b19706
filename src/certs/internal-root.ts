import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { OperatorError } from '../kit/operator-error.ts';
import { type Signer, signCertificate } from './signing.ts';

/** The local CA: its key in `<dataDir>/ca.key` (mode 0600), its certificate in `<dataDir>/ca.crt` for clients to trust. */
export interface InternalRoot extends Signer {
  readonly pem: string;
  /** SHA-256, upper-case pairs with colons, as clients and `openssl x509 -fingerprint -sha256` show it. */
  readonly fingerprint: string;
  readonly notAfter: number;
  /** True when this start made it: clients must trust it anew. */
  readonly fresh: boolean;
}

/** Ten years: people install a root by hand, and a gateway outlives machines. */
const ROOT_LIFETIME = 10 * 365 * 24 * 3_600_000;
/** Clocks of clients in the same house may be slow. */
const BACKDATE = 24 * 3_600_000;

/** Loads the CA, or makes it on the first start. @throws {OperatorError} where its files do not belong together. */
export function openInternalRoot(dataDir: string, now: number = Date.now()): InternalRoot {
  const keyFile = join(dataDir, 'ca.key');
  const certificateFile = join(dataDir, 'ca.crt');
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const fresh = !existsSync(keyFile);
  if (fresh) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    writeWhole(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), 0o600);
  }
  const key = readKey(keyFile);
  const publicKey = createPublicKey(key);
  let certificate = fresh ? null : readCertificate(certificateFile);
  if (certificate !== null && !certificate.checkPrivateKey(key)) {
    throw new OperatorError('INTERNAL_CA_DAMAGED', `${certificateFile} does not belong to ${keyFile}`, {
      next: 'restore both from a copy, or remove both: a new CA is made at the next start, and clients must trust that one',
    });
  }
  // Lost with its key still there (a kill between the two files), or run out: signed anew with the same key.
  const renewed = certificate === null || certificate.validToDate.getTime() <= now;
  if (certificate === null || renewed) {
    // Named by its key, so that two gateways' CAs are told apart in a trust store.
    const id = createHash('sha256')
      .update(publicKey.export({ type: 'spki', format: 'der' }))
      .digest('hex')
      .slice(0, 8);
    const commonName = `Registry gateway local CA ${id}`;
    certificate = signCertificate(
      { commonName, names: [], publicKey, notBefore: now - BACKDATE, notAfter: now + ROOT_LIFETIME, ca: true },
      { key, publicKey, commonName },
    );
    writeWhole(certificateFile, certificate.toString(), 0o644);
  }
  return {
    key,
    publicKey,
    commonName: certificate.subject.replace(/^CN=/, ''),
    pem: certificate.toString(),
    fingerprint: certificate.fingerprint256,
    notAfter: certificate.validToDate.getTime(),
    fresh: renewed,
  };
}

function readKey(file: string) {
  try {
    return createPrivateKey(readFileSync(file));
  } catch (cause) {
    throw new OperatorError('INTERNAL_CA_DAMAGED', `the key of the local CA, ${file}, cannot be read`, {
      next: 'restore it from a copy, or remove it and ca.crt: a new CA is made at the next start, and clients must trust that one',
      cause,
    });
  }
}

function readCertificate(file: string): X509Certificate | null {
  try {
    return new X509Certificate(readFileSync(file));
  } catch {
    return null;
  }
}

/** Whole or not at all, and on disk when it returns. */
function writeWhole(file: string, content: string, mode: number): void {
  const temporary = `${file}.new`;
  // One left by a kill could have another mode.
  rmSync(temporary, { force: true });
  const descriptor = openSync(temporary, 'wx', mode);
  try {
    writeSync(descriptor, content);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(temporary, file);
}
