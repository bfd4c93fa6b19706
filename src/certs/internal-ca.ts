import { createHash, createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
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
import { renewalTime } from './schedule.ts';
import { type CertificateMaterial, newKeyPair, readFacts, type Signer, signCertificate } from './x509.ts';

/** The local CA: its key in `<dataDir>/ca-key.pem` (mode 0600), its certificate in `<dataDir>/ca.crt` for clients to trust. */
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
/**
 * 90 days: well under the 825 that macOS and iOS allow a leaf below a root that a person installed (support.apple.com/103769),
 * and never longer than the root lasts.
 */
const LEAF_LIFETIME = 90 * 24 * 3_600_000;
/** Clocks of clients may be slow: by a day for the root, which is installed once, by an hour for leaves. */
const ROOT_BACKDATE = 24 * 3_600_000;
const LEAF_BACKDATE = 3_600_000;

/**
 * Signs leaves on demand, within a handshake if need be (0.3 ms): any name is ready at once, nothing is kept on disk but the root,
 * and a leaf that grows old is replaced when it is next asked for.
 */
export class InternalCa {
  readonly root: InternalRoot;
  readonly #now: () => number;
  readonly #leaves = new Map<string, CertificateMaterial>();

  constructor(root: InternalRoot, now: () => number) {
    this.root = root;
    this.#now = now;
  }

  /** The leaf for these names, kept under the first. */
  leaf(names: readonly [string, ...string[]]): CertificateMaterial {
    return this.made(names[0]) ?? this.renew(names);
  }

  /** The leaf kept under this name, if one was made and need not be replaced yet. */
  made(name: string): CertificateMaterial | null {
    const held = this.#leaves.get(name);
    return held !== undefined && this.#now() < renewalTime(held, null) && this.#now() >= held.notBefore ? held : null;
  }

  /** A new one, whatever is held. */
  renew(names: readonly [string, ...string[]]): CertificateMaterial {
    const now = this.#now();
    const { publicKey, pem } = newKeyPair();
    const certificate = signCertificate(
      {
        commonName: names[0],
        names,
        publicKey,
        notBefore: now - LEAF_BACKDATE,
        notAfter: Math.min(now + LEAF_LIFETIME, this.root.notAfter),
        ca: false,
      },
      this.root,
    );
    const material: CertificateMaterial = { ...readFacts(certificate), chain: certificate.toString(), key: pem };
    this.#leaves.set(names[0], material);
    return material;
  }

  forget(name: string): void {
    this.#leaves.delete(name);
  }
}

/**
 * Not `ca.key`: clients that are given the data directory for its `ca.crt` (skopeo's `--src-cert-dir`, docker's `certs.d`) take every `*.key` for
 * that of a client's certificate, and refuse a directory that has none to go with it.
 */
const KEY_FILE = 'ca-key.pem';
/** As versions before named it. */
const EARLIER_KEY_FILE = 'ca.key';

/** Loads the CA, or makes it on the first start. @throws {OperatorError} where its files do not belong together. */
export function openInternalRoot(dataDir: string, now: number = Date.now()): InternalRoot {
  const keyFile = join(dataDir, KEY_FILE);
  const certificateFile = join(dataDir, 'ca.crt');
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const earlier = join(dataDir, EARLIER_KEY_FILE);
  if (!existsSync(keyFile) && existsSync(earlier)) renameSync(earlier, keyFile);
  const fresh = !existsSync(keyFile);
  if (fresh) {
    writeWhole(keyFile, newKeyPair().pem, 0o600);
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
      { commonName, names: [], publicKey, notBefore: now - ROOT_BACKDATE, notAfter: now + ROOT_LIFETIME, ca: true },
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

/**
 * Lets several gateways have one local CA: the files become those of the fleet. Done before they are opened.
 * @param shared gives what the first gateway has put, which is `own()` for that one; null where it cannot be known now: then the files stay
 * @returns whether another CA was here, which clients of this gateway may trust
 */
export async function shareInternalRoot(
  dataDir: string,
  shared: (own: () => string) => Promise<string | null>,
): Promise<boolean> {
  const [keyFile, certificateFile] = [join(dataDir, KEY_FILE), join(dataDir, 'ca.crt')];
  const hadOwn = existsSync(keyFile);
  const read = () => JSON.stringify([readFileSync(keyFile, 'utf8'), readFileSync(certificateFile, 'utf8')]);
  const text = await shared(() => {
    openInternalRoot(dataDir);
    return read();
  });
  if (text === null || (existsSync(keyFile) && existsSync(certificateFile) && read() === text)) return false;
  const [key, certificate] = JSON.parse(text) as [string, string];
  // A kill between the two is mended by the next start: the certificate that does not belong to the key is gone.
  rmSync(certificateFile, { force: true });
  writeWhole(keyFile, key, 0o600);
  writeWhole(certificateFile, certificate, 0o644);
  return hadOwn;
}

/** Gives the local CA of a data directory to a fleet, where there is one. */
export async function giveInternalRoot(dataDir: string, give: (own: string) => Promise<unknown>): Promise<void> {
  const files = [join(dataDir, KEY_FILE), join(dataDir, 'ca.crt')];
  if (files.every((file) => existsSync(file)))
    await give(JSON.stringify(files.map((file) => readFileSync(file, 'utf8'))));
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
