import { readFileSync } from 'node:fs';
import type { SecureContext } from 'node:tls';
import { parseAuthorities, trusting } from '../../kit/authorities.ts';
import { OperatorError } from '../../kit/operator-error.ts';

/**
 * Whom connections to registries trust: Node's own roots, this machine's store and `upstream.caFile`, and for one registry its `--ca` as well. Most
 * registries need the first alone, so that the rest is read when a certificate asks for it.
 */
export class Trust {
  /** PEM; null where none is configured. */
  readonly #common: string | null;
  readonly #contexts = new Map<string, SecureContext>();
  #readsSystem = false;

  /** @throws {OperatorError} `CA_INVALID` */
  constructor(caFile: string | null) {
    this.#common = caFile === null ? null : readAuthorities(caFile);
  }

  /** Whether both trust the same besides what this machine does. */
  equals(other: Trust): boolean {
    return this.#common === other.#common;
  }

  /** @param ca of the registry; undefined where Node's own roots are enough so far */
  context(ca: string | null): SecureContext | undefined {
    if (ca === null && this.#common === null && !this.#readsSystem) return undefined;
    const key = ca ?? '';
    let context = this.#contexts.get(key);
    if (context === undefined) {
      context = trusting(...[this.#common, ca].filter((pem) => pem !== null));
      this.#contexts.set(key, context);
    }
    return context;
  }

  /**
   * To be called where an issuer is unknown: whether there is more to trust now, so that it is worth another try.
   * @param tried what did not know the issuer; another connection may have had the store read since
   */
  readSystem(tried: SecureContext | undefined): boolean {
    if (tried !== undefined) return false;
    this.#readsSystem = true;
    return true;
  }
}

function readAuthorities(file: string): string {
  const refuse = (problem: string, cause: unknown) =>
    new OperatorError('CA_INVALID', `the file ${file} ${problem}`, {
      next: 'set upstream.caFile to a PEM file with the certificates of your authorities',
      cause,
    });
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw refuse(`cannot be read: ${(error as Error).message}`, error);
  }
  try {
    return parseAuthorities(text);
  } catch (error) {
    throw refuse((error as Error).message, error);
  }
}
