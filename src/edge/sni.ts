import { isIP, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import { materialOf } from '../certs/contexts.ts';
import { PROTOCOL } from '../certs/protocol.ts';
import type { ContextSnapshot } from '../certs/service.ts';

/**
 * A fatal `unrecognized_name` alert (RFC 6066 §3, RFC 8446 §6) in a plaintext record: no key is agreed on yet when the
 * name is known. Node's own refusal closes without a word, and a client then takes it for a broken network.
 */
const UNRECOGNIZED_NAME = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70]);

/** The client asked for a name that has no certificate here. */
class UnknownNameError extends Error {
  override readonly name = 'UnknownNameError';
  readonly code = 'UNRECOGNIZED_NAME';
}

/**
 * What handshakes start from: the certificate for clients that name no host, and the keys of session tickets. It changes with that
 * certificate, and tickets survive that: all of them are made with the same keys. (Given to each connection by itself, the certificate
 * made a handshake 3 to 4 % dearer.)
 */
export class StartingContext {
  readonly #ticketKeys: Buffer;
  #fallback: SecureContext | null = null;
  #context: SecureContext;

  /** @param ticketKeys 48 bytes, shared by all processes of one gateway */
  constructor(ticketKeys: Buffer) {
    this.#ticketKeys = ticketKeys;
    this.#context = this.#with(null);
  }

  /** @param fallback built by `contextOf` */
  of(fallback: SecureContext | null): SecureContext {
    if (fallback !== this.#fallback) {
      this.#context = this.#with(fallback);
      this.#fallback = fallback;
    }
    return this.#context;
  }

  #with(fallback: SecureContext | null): SecureContext {
    const material = fallback === null ? null : materialOf(fallback);
    return createSecureContext({
      ...PROTOCOL,
      ...(material === null ? {} : { cert: material.chain, key: material.key }),
      ticketKeys: this.#ticketKeys,
      sessionIdContext: 'registry-gateway',
    });
  }
}

/**
 * Begins TLS on a connection: the certificate of exactly the name that the client asks for, the fallback where it asks
 * for none (an IP address), and an alert for every other name.
 */
export function secure(
  raw: Socket,
  starting: StartingContext,
  contexts: () => ContextSnapshot,
  protocols: readonly string[],
): TLSSocket {
  return new TLSSocket(raw, {
    isServer: true,
    secureContext: starting.of(contexts().fallback),
    ALPNProtocols: [...protocols],
    SNICallback: (serverName, callback) => {
      const answer = (context: SecureContext | null): void => {
        if (context !== null) {
          callback(null, context);
          return;
        }
        refuseName(raw);
        callback(new UnknownNameError(`no certificate for ${serverName.slice(0, 255)}`));
      };
      const snapshot = contexts();
      const name = plainName(serverName);
      const ready = contextFor(name, snapshot);
      if (ready !== null || snapshot.find === undefined) answer(ready);
      else snapshot.find(name).then(answer, callback);
    },
  });
}

/** Says `unrecognized_name`; whoever calls ends the connection. */
export function refuseName(raw: Socket): void {
  raw.write(UNRECOGNIZED_NAME);
}

function plainName(serverName: string): string {
  return (serverName.endsWith('.') ? serverName.slice(0, -1) : serverName).toLowerCase();
}

function contextFor(name: string, snapshot: ContextSnapshot): SecureContext | null {
  // RFC 6066 forbids addresses as server names; some clients send them all the same.
  return snapshot.byHost.get(name) ?? (isIP(name) === 0 ? null : snapshot.fallback);
}
