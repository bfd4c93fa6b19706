import { createRequire } from 'node:module';

/** The library, loaded when the first file is read: only commands that put a client's configuration in place do. It keeps comments and layout. */
export const tomlLibrary = (): typeof import('@decimalturn/toml-patch') =>
  createRequire(import.meta.url)('@decimalturn/toml-patch') as typeof import('@decimalturn/toml-patch');
