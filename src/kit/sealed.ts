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
