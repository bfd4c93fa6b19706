import { afterEach } from 'vitest';
import type { RegistryError } from '../../src/oci/errors.ts';
import { renderError } from '../../src/oci/errors.ts';
import { FakeRegistry, type FakeRegistryOptions } from './fake-registry/index.ts';
import { type AskOptions, type BedOptions, RegistryBed } from './registry-bed.ts';

/** The repository of the tests of what registries answer. */
export const REPOSITORY = 'library/app';
export const REGISTRY = 'r.test';

const closers: (() => Promise<unknown>)[] = [];

/** To be called once by each test file that uses the bed: all that its tests started is closed after each. */
export function closeAfterEach(): void {
  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close();
  });
}

export async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(options);
  closers.push(() => fake.close());
  return fake;
}

/** A proxy core whose one registry is a fake. */
export async function answersBed(options: FakeRegistryOptions = {}, bedOptions: Partial<BedOptions> = {}) {
  const fake = await fakeRegistry(options);
  const bed = await RegistryBed.start({ registries: { [REGISTRY]: { fake } }, ...bedOptions });
  closers.push(() => bed.stop());
  return {
    fake,
    bed,
    repository: fake.repository(REPOSITORY),
    manifest: (reference: string, ask: AskOptions = {}) => bed.manifest(REGISTRY, REPOSITORY, reference, ask),
    blob: (digest: string, ask: AskOptions = {}) => bed.blob(REGISTRY, REPOSITORY, digest, ask),
    ask: (what: Parameters<RegistryBed['ask']>[2], ask: AskOptions = {}) => bed.ask(REGISTRY, REPOSITORY, what, ask),
  };
}

/** What a client is told of a pull that fails. */
export async function toldOf(promise: Promise<unknown>): Promise<{ status: number; message: string; detail: unknown }> {
  const error = await promise.then(
    () => new Error('it was served'),
    (thrown: unknown) => thrown,
  );
  if ((error as Error).name !== 'RegistryError') throw error;
  const { status, body } = renderError(error as RegistryError);
  const [row] = (JSON.parse(body) as { errors: { message: string; detail: unknown }[] }).errors;
  return { status, message: row?.message ?? '', detail: row?.detail };
}
