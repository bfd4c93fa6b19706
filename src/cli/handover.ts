import { deserialize, serialize } from 'node:v8';
import type { LoadedConfig } from '../config/load.ts';
import { OperatorError } from '../kit/operator-error.ts';

/** What a serving program needs to know of the command line, the configuration and the environment. */
export type Handover = Pick<LoadedConfig, 'config' | 'warnings'>;

/**
 * The configuration may hold passwords. Arguments are shown to every user (`ps`); the environment only to the same one, and the
 * passwords that `GATEWAY_…` variables hold are there already.
 */
const VARIABLE = 'GATEWAY_HANDOVER';

/** Linux takes no more than 128 KiB in one variable, its name included (MAX_ARG_STRLEN). */
const MAX_LENGTH = 120 * 1024;

/** The variable to hand over with; null where the configuration is too long for one. */
export function handoverEnv({ config, warnings }: Handover): { readonly [VARIABLE]: string } | null {
  // Not JSON: that has no `undefined`.
  const text = serialize({ config, warnings }).toString('base64');
  return text.length > MAX_LENGTH ? null : { [VARIABLE]: text };
}

/** Reads what was handed over, and removes it from `env`, so that no further process is given it. @throws {OperatorError} */
export function takeHandover(env: NodeJS.ProcessEnv): Handover {
  const text = env[VARIABLE];
  delete env[VARIABLE];
  if (text === undefined) {
    throw new OperatorError('HANDOVER_MISSING', 'this program is a part of the gateway and was started by itself', {
      next: 'start it with: gateway serve',
      usage: true,
    });
  }
  return deserialize(Buffer.from(text, 'base64')) as Handover;
}
