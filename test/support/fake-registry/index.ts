export {
  type Content,
  contentOf,
  generated,
  generatedLayer,
  MEDIA,
  RepositoryContent,
  type StoredManifest,
  sha256,
} from './content.ts';
export { type LoggedRequest, RequestLog } from './log.ts';
export type { FakeRegistryOptions, Fault, FaultPlan } from './options.ts';
export { QUIRKS } from './quirks.ts';
export { FakeRegistry } from './server.ts';
