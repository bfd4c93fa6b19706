import { expect, test } from 'vitest';
import { Askers } from '../../../src/kit/askers.ts';
import { type DocumentOrigin, readDocument } from '../../../src/oci/document-reader.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { OCI_MANIFEST } from '../../../src/oci/media-types.ts';

const digest = (at: number) => `sha256:${at.toString(16).padStart(64, '0')}`;
const layers = (count: number) => ({ layers: Array.from({ length: count }, (_, at) => ({ digest: digest(at) })) });
/** Of almost 4 MiB, the largest that a manifest may be: eight wait at most. */
const HUGE = Buffer.from(JSON.stringify(layers(45_000)));
/** Too large to be read at once. */
const LARGE = Buffer.from(JSON.stringify(layers(1_000)));

test('large documents are read in turns of their registries, and of the clients of each', async () => {
  const order: string[] = [];
  const refused: RegistryError[] = [];
  const read = async (name: string, bytes: Buffer, origin: DocumentOrigin): Promise<void> => {
    try {
      const reading = await readDocument('manifest', bytes, { mediaType: OCI_MANIFEST }, origin);
      expect(reading?.named).toHaveLength(1_000);
      order.push(name);
    } catch (error) {
      refused.push(error as RegistryError);
    }
  };
  const flood = Array.from({ length: 40 }, () =>
    read('flood', HUGE, { registry: 'evil.test', askers: new Askers('greedy') }),
  );
  const others = [
    read('its other client', LARGE, { registry: 'evil.test', askers: new Askers('modest') }),
    read('another registry', LARGE, { registry: 'good.test', askers: new Askers('modest') }),
  ];
  await Promise.all([...flood, ...others]);
  // One was being read, and at most one of those who wait goes before.
  expect(order.slice(0, 4)).toEqual(expect.arrayContaining(['its other client', 'another registry']));
  expect(order.indexOf('another registry')).toBeLessThan(3);
  // What waits is bounded in bytes; clients are told in words when to come back.
  expect(refused.length).toBeGreaterThanOrEqual(30);
  for (const error of refused) {
    expect(error).toBeInstanceOf(RegistryError);
    expect([error.status, error.message]).toEqual([503, 'the gateway is busy with large documents from evil.test']);
  }
});

test('a document for which nobody waits any more is not read', async () => {
  const leaving = new AbortController();
  const origin = { registry: 'evil.test', askers: new Askers('a') };
  const reads = readDocument('manifest', HUGE, { mediaType: '' }, origin);
  const left = readDocument('manifest', HUGE, { mediaType: '' }, { ...origin, signal: leaving.signal });
  leaving.abort(new Error('gone'));
  await expect(left).rejects.toThrow('gone');
  expect(await reads).not.toBeNull();
});
