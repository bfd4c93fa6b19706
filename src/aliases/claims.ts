import { OperatorError } from '../kit/operator-error.ts';
import type { AliasEntry, TableSnapshot } from './table.ts';

/** @throws {OperatorError} `ALIAS_TAKEN` where the name or its host stands for another registry already. */
export function refuseTaken(snapshot: TableSnapshot, name: string, host: string, registry: string): void {
  const held = snapshot.aliases.get(name) ?? snapshot.hosts.get(host);
  if (held === undefined || (held.name === name && held.registry === registry)) return;
  throw aliasTaken(held, name, `choose another name, or remove it first: gateway alias rm ${held.name}`);
}

/** That `name` cannot be had because of the alias `held`. */
export function aliasTaken(held: AliasEntry, name: string, next?: string): OperatorError {
  const message =
    held.name === name
      ? `the alias ${name} stands for ${held.registry} already`
      : `the host ${held.host} belongs to the alias ${held.name}, which stands for ${held.registry}`;
  return new OperatorError('ALIAS_TAKEN', message, next === undefined ? {} : { next });
}
