/** Who asks, as the edge sees them. */
export interface Asker {
  /** Client's IP address, proxies that are trusted already taken off. */
  readonly address: string;
  /** The `Authorization` header as it came. */
  readonly authorization: string | undefined;
  /** Host name that the client used, for the challenge's realm and messages. */
  readonly host: string;
}

/** A client that may go on. */
export interface Grant {
  /** User name, or null for an anonymous client. */
  readonly user: string | null;
  /** True where the client showed credentials that the gateway knows. */
  readonly authenticated: boolean;
}

/** Port: users, address rules and limits. `src/access/` stands behind it. */
export interface AccessPort {
  /** @throws {RegistryError} unauthorized (with its challenge), clientDenied, tooManyRequests */
  check(asker: Asker): Grant | Promise<Grant>;
  /** Body bytes that this client was sent. */
  countBytes(asker: Asker, grant: Grant, bytes: number): void;
}
