import { isUtf8 } from 'node:buffer';
import { createCipheriv, createDecipheriv, createHmac, randomBytes, scryptSync } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { OperatorError } from './operator-error.ts';

/**
 * Encrypts what is secret before it leaves for a database that others share: private keys, passwords of registries.
 * A holder of the same `secretFile` opens it again.
 */
export interface Sealer {
  /** @param context where it is kept, table, column and key of the row: what is moved to another place there does not open. Not secret */
  seal(plain: string, context: string): string;
  /** @throws where it was not sealed under a known key for this context, or was changed */
  open(sealed: string, context: string): string;
}

/** AES-256 in GCM (NIST SP 800-38D): a nonce of 96 bits, which is random, and the whole tag. */
const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** The first part of each sealed text: another way to seal would have another. */
const FORM = 'v1';
/** What a key's identifier is computed of, so that it tells nothing of the key. */
const ID_LABEL = 'registry-gateway: identifier of a key';
/** Whoever can write the file chooses the key. */
const FORBIDDEN_MODE = 0o002;
/** That others may read it is only warned of: Kubernetes and Docker put secrets into a container that way. */
const OPEN_MODE = 0o004;
/** A passphrase that is shorter is guessed too easily by whoever has a copy of the database. */
const SHORTEST_PASSPHRASE = 16;
/** scrypt (RFC 7914): 32 MiB and about a tenth of a second, once at the start. The same text has to become the same key everywhere: hence no salt of its own. */
const SCRYPT = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 };
const SCRYPT_SALT = 'registry-gateway: key of a passphrase';
/** A key a line, the newest first; more than these were never meant. */
const MAX_KEYS = 100;

interface SealingKey {
  /** 16 hex digits; part of what it seals. */
  readonly id: string;
  readonly key: Buffer;
}

/**
 * The keys of a `secretFile`, one a line: 32 bytes in base64 or in hex, behind a name if people are to tell them apart, or a passphrase of at least
 * 16 characters; empty lines and those that begin with `#` are passed over. A file of 32 bytes that are no text is one key. The first key seals, all
 * of them open. A sealed text is `v1.<identifier of the key>.<nonce, bytes and tag in base64url>`.
 */
export class SecretKeys implements Sealer {
  /** Where they are from, for messages. */
  readonly file: string;
  readonly #keys: readonly [SealingKey, ...SealingKey[]];

  /** @throws {OperatorError} `SECRET_FILE_INVALID` where the text has no keys, or a line that is none; no part of a line is repeated */
  constructor(content: string | Buffer, file: string) {
    this.file = file;
    if (typeof content !== 'string' && content.length === KEY_BYTES && !isText(content)) {
      this.#keys = [sealingKey(content)];
      return;
    }
    const text = content.toString();
    const keys = text.split(/\r?\n/).flatMap((line, index) => {
      if (line.trim() === '' || line.trimStart().startsWith('#')) return [];
      const key = parseKey(line);
      if (key === null)
        throw invalid(
          file,
          `line ${index + 1} is no key: that is 32 bytes in base64 or hex, or a passphrase of at least ${SHORTEST_PASSPHRASE} characters`,
        );
      return [key];
    });
    const [first, ...others] = keys;
    if (first === undefined) throw invalid(file, 'there is no key in it');
    if (keys.length > MAX_KEYS) throw invalid(file, `it has more than ${MAX_KEYS} keys`);
    this.#keys = [first, ...others];
  }

  /** @throws {OperatorError} `SECRET_FILE_INVALID` where it cannot be read, or everybody can write it */
  static read(file: string): SecretKeys {
    try {
      const { mode } = statSync(file);
      if ((mode & FORBIDDEN_MODE) !== 0)
        throw invalid(file, `everybody may write it ${shown(mode)}`, `chmod 600 ${file}`);
      return new SecretKeys(readFileSync(file), file);
    } catch (error) {
      if (error instanceof OperatorError) throw error;
      throw invalid(file, (error as Error).message.split(',')[0] ?? '', undefined, error);
    }
  }

  /** What is to be mended about a file although it is used, a whole sentence; null where nothing is, or it cannot be looked at. */
  static warningOf(file: string): string | null {
    const mode = statSync(file, { throwIfNoEntry: false })?.mode ?? 0;
    if ((mode & OPEN_MODE) === 0) return null;
    return `everybody on this machine may read the keys in ${file} ${shown(mode)}: chmod 600 ${file}`;
  }

  /** Identifiers, that of the key that seals first. */
  get ids(): readonly string[] {
    return this.#keys.map(({ id }) => id);
  }

  /** Whether a text is sealed under the first key. */
  isCurrent(sealed: string): boolean {
    return sealed.split('.')[1] === this.#keys[0].id;
  }

  seal(plain: string, context: string): string {
    const [{ id, key }] = this.#keys;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(Buffer.from(context));
    const bytes = Buffer.concat([nonce, cipher.update(plain, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return `${FORM}.${id}.${bytes.toString('base64url')}`;
  }

  /** @throws {OperatorError} `SECRET_KEY_MISSING`, `SECRET_DAMAGED` */
  open(sealed: string, context: string): string {
    const [form, id, text] = sealed.split('.');
    if (form !== FORM || id === undefined || text === undefined)
      throw damaged(context, 'it is not in a form that is known');
    const held = this.#keys.find((one) => one.id === id);
    if (held === undefined) {
      throw new OperatorError(
        'SECRET_KEY_MISSING',
        `${context} is encrypted under the key ${id}, which is not in ${this.file} (it has ${this.ids.join(', ')})`,
        { next: `add that key to ${this.file} as a further line, as the other gateways of this database have it` },
      );
    }
    const bytes = Buffer.from(text, 'base64url');
    if (bytes.length < NONCE_BYTES + TAG_BYTES) throw damaged(context, 'it is too short');
    const decipher = createDecipheriv(CIPHER, held.key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(context));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    try {
      const plain = [decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()];
      return Buffer.concat(plain).toString('utf8');
    } catch (cause) {
      throw damaged(context, 'it was changed, or belongs to another place', cause);
    }
  }
}

/** `KEY` or `NAME KEY`, in base64 or hex, or a passphrase; null where it is none of them. */
function parseKey(line: string): SealingKey | null {
  const [, base64, hex] = /^(?:\S+\s+)?(?:([A-Za-z0-9+/_-]{43}=?)|([0-9A-Fa-f]{64}))$/.exec(line.trim()) ?? [];
  if (base64 !== undefined) return sealingKey(Buffer.from(base64, 'base64'));
  if (hex !== undefined) return sealingKey(Buffer.from(hex, 'hex'));
  const passphrase = line.trim();
  return passphrase.length < SHORTEST_PASSPHRASE
    ? null
    : sealingKey(scryptSync(passphrase, SCRYPT_SALT, KEY_BYTES, SCRYPT));
}

function sealingKey(key: Buffer): SealingKey {
  return { id: createHmac('sha256', key).update(ID_LABEL).digest('hex').slice(0, 16), key };
}

function shown(mode: number): string {
  return `(mode ${(mode & 0o777).toString(8)})`;
}

function isText(bytes: Buffer): boolean {
  return isUtf8(bytes) && bytes.every((byte) => byte >= 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09);
}

function invalid(file: string, reason: string, next?: string, cause?: unknown): OperatorError {
  return new OperatorError('SECRET_FILE_INVALID', `the file of keys (secretFile) ${file} cannot be used: ${reason}`, {
    next,
    cause,
  });
}

function damaged(context: string, reason: string, cause?: unknown): OperatorError {
  return new OperatorError('SECRET_DAMAGED', `${context} cannot be decrypted: ${reason}`, { cause });
}
