export { type Content, generated, generatedLayer, sha256 } from '../content.ts';
export { MEDIA } from './content.ts';
export type { FakeRegistryOptions } from './options.ts';
export { QUIRKS } from './quirks.ts';
export { FakeRegistry } from './server.ts';
