import type { Asker, Grant } from '../access/access.ts';

/** Port: users, address rules and limits, as the edge needs them. */
export interface AccessPort {
  /** @throws {RegistryError} unauthorized (with its challenge), clientDenied, tooManyRequests */
  check(asker: Asker): Grant | Promise<Grant>;
  /** Body bytes that this client was sent. */
  countBytes(asker: Asker, grant: Grant, bytes: number): void;
}
