import { generatedLayer } from '../content.ts';
import type { FakeRegistryOptions } from './options.ts';
import { FakeRegistry } from './server.ts';

/** The fake as a program of its own, for network namespaces: `node main.ts '<JSON>'`. Prints one JSON line when it listens; ends by SIGTERM. */
export interface FakeProgram {
  readonly options: Pick<FakeRegistryOptions, 'host' | 'port' | 'tls'>;
  /** Names of the token endpoint and of the download host; the registry's own name is for the gateway to know. */
  readonly names: { readonly auth: string; readonly downloads: string };
  readonly repository: string;
  readonly tag: string;
  readonly layers: readonly number[];
}

const program = JSON.parse(process.argv[2] ?? '') as FakeProgram;
const scheme = program.options.tls === undefined ? 'http' : 'https';
let downloads = '';
const fake = await FakeRegistry.start({
  ...program.options,
  auth: { scheme: 'bearer', realm: `${scheme}://${program.names.auth}:${program.options.port}/token` },
  redirect: { to: (digest) => `${downloads}/data/${digest}` },
});
downloads = `${scheme}://${program.names.downloads}:${new URL(fake.cdnUrl).port}`;
const layers = program.layers.map((size, i) => generatedLayer(size, i));
const image = fake.repository(program.repository).addImage(program.tag, layers);
const digests = [image.digest, image.config.digest, ...image.layers.map(({ digest }) => digest)];
process.stdout.write(`${JSON.stringify({ listening: fake.url, digests })}\n`);
process.on('SIGTERM', () => {
  const kinds = fake.log.all.map(({ kind }) => kind);
  process.stdout.write(`${JSON.stringify({ asked: [...new Set(kinds)] })}\n`);
  void fake.close();
});
