import type { TableSnapshot } from '../../aliases/table.ts';
import { normaliseHostName } from '../../kit/host-name.ts';
import { OperatorError } from '../../kit/operator-error.ts';

/** The host that a certificate command means: an alias by its name, else a host as it is. @throws {OperatorError} usage */
export function certificateHost(table: TableSnapshot, given: string): string {
  const alias = table.aliases.get(given.toLowerCase());
  if (alias !== undefined) return alias.host;
  const result = normaliseHostName(given);
  if ('host' in result) return result.host;
  throw new OperatorError('HOST_INVALID', `"${given}" ${result.problem}`, {
    next: 'give a host name or an alias; gateway cert ls lists those there are',
  });
}
