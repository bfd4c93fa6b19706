export { type Content, generated, generatedLayer, MEDIA, sha256 } from './content.ts';
export type { FakeRegistryOptions } from './options.ts';
export { QUIRKS } from './quirks.ts';
export { FakeRegistry } from './server.ts';
