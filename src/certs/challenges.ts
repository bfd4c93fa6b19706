import type { SecureContext } from 'node:tls';
import { contextOf } from './contexts.ts';
import type { ChallengeResponder } from './issuer.ts';

/** The answers that are up now, for the listeners to give. Several orders may be on their way at once. */
export class ChallengeBoard implements ChallengeResponder {
  readonly #http = new Map<string, string>();
  readonly #alpn = new Map<string, SecureContext>();

  http(token: string, content: string): () => void {
    this.#http.set(token, content);
    return () => {
      if (this.#http.get(token) === content) this.#http.delete(token);
    };
  }

  alpn(host: string, certificate: { chain: string; key: string }): () => void {
    const context = contextOf(certificate);
    this.#alpn.set(host, context);
    return () => {
      if (this.#alpn.get(host) === context) this.#alpn.delete(host);
    };
  }

  httpContent(token: string): string | null {
    return this.#http.get(token) ?? null;
  }

  alpnContext(host: string): SecureContext | null {
    return this.#alpn.get(host) ?? null;
  }

  get alpnPending(): boolean {
    return this.#alpn.size > 0;
  }
}
