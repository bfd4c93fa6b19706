import { createRequire } from 'node:module';
import { OperatorError } from '../kit/operator-error.ts';

/** Loaded when the first file is read: only commands that look at a client's configuration on this machine do. */
const library = (): typeof import('@decimalturn/toml-patch') =>
  createRequire(import.meta.url)('@decimalturn/toml-patch') as typeof import('@decimalturn/toml-patch');

/** What a client's TOML file means. @throws {OperatorError} CLIENT_FILE_REFUSED, with the parser's first line, which says where it failed */
export function readToml(path: string, text: string): unknown {
  try {
    return library().parse(text);
  } catch (cause) {
    const reason = (cause as Error).message.split('\n')[0];
    throw new OperatorError('CLIENT_FILE_REFUSED', `${path} is no TOML: ${reason}`, { cause });
  }
}

/** The text with the values of `meant`; comments and layout stay. */
export function patchToml(text: string, meant: object): string {
  return library().patch(text, meant);
}
