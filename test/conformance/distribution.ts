import { createHash } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import { nextTarget, parseLinks } from '../../src/oci/link.ts';
import { OCI_INDEX } from '../../src/oci/media-types.ts';

export interface Answer {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
}

/** A way to reach a registry: what stands in front of `<name>`, and how a request is sent. */
export interface Way {
  /** `/v2/`, `/v2/quay.io/`, `/quay.io/v2/`: a path that `<name>/manifests/<reference>` follows. */
  readonly base: string;
  /** Sends a request for a path, which may have a query; never follows redirects. */
  send(method: string, path: string, headers?: Readonly<Record<string, string>>): Promise<Answer>;
}

/** What the registry behind it holds. */
export interface Held {
  readonly name: string;
  readonly absentName: string;
  readonly tag: string;
  readonly manifest: { readonly body: Buffer; readonly mediaType: string; readonly digest: string };
  readonly blob: { readonly body: Buffer; readonly digest: string };
  /** At least three, `tag` among them, and nothing else is tagged. */
  readonly tags: readonly string[];
  /** What refers to `manifest`: none where the registry has no such API. */
  readonly referrers: readonly { readonly digest: string; readonly artifactType: string }[];
}

/**
 * What the OCI distribution specification (1.1) asks of a registry for its workflow categories *Pull* and *Content Discovery*, clause by clause,
 * in this project's words. Every URL that it uses is built from `way.base`.
 */
export function distributionConformance(title: string, setUp: () => Promise<{ way: Way; held: Held }>): void {
  describe(title, () => {
    let way: Way;
    let held: Held;
    beforeAll(async () => {
      ({ way, held } = await setUp());
    });
    const at = (what: string, name = held.name) => `${way.base}${name}/${what}`;
    const absent = `sha256:${'0'.repeat(64)}`;

    describe('determining support (end-1)', () => {
      test('GET /v2/ is 200 where no credentials are wanted', async () => {
        const answer = await way.send('GET', '/v2/');
        expect([answer.status, answer.headers['docker-distribution-api-version']]).toEqual([200, 'registry/2.0']);
      });
    });

    describe('pulling manifests (end-3)', () => {
      const accept = () => ({ accept: held.manifest.mediaType });

      for (const by of ['tag', 'digest'] as const) {
        const url = () => at(`manifests/${by === 'tag' ? held.tag : held.manifest.digest}`);

        test(`GET by ${by}: 200, the exact bytes, their type and digest`, async () => {
          const answer = await way.send('GET', url(), accept());
          expect([answer.status, digestOf(answer.body)]).toEqual([200, held.manifest.digest]);
          expect(answer.body.equals(held.manifest.body)).toBe(true);
          expect(answer.headers['content-type']).toBe(held.manifest.mediaType);
          expect(answer.headers['docker-content-digest']).toBe(held.manifest.digest);
          expect(answer.headers['content-length']).toBe(String(held.manifest.body.length));
        });

        test(`HEAD by ${by}: 200, the headers of GET, no body`, async () => {
          const answer = await way.send('HEAD', url(), accept());
          expect([answer.status, answer.body.length]).toEqual([200, 0]);
          expect(answer.headers['content-type']).toBe(held.manifest.mediaType);
          expect(answer.headers['docker-content-digest']).toBe(held.manifest.digest);
          expect(answer.headers['content-length']).toBe(String(held.manifest.body.length));
        });
      }

      test('a client that names no type gets the manifest', async () => {
        expect((await way.send('GET', at(`manifests/${held.tag}`))).status).toBe(200);
        expect((await way.send('GET', at(`manifests/${held.tag}`), { accept: '*/*' })).status).toBe(200);
      });

      test('what is missing: 404, by GET with an error body, by HEAD without one', async () => {
        for (const path of [at('manifests/absent'), at(`manifests/${absent}`), at('manifests/x', held.absentName)]) {
          const answer = await way.send('GET', path, accept());
          expect(answer.status).toBe(404);
          expect(['MANIFEST_UNKNOWN', 'NAME_UNKNOWN']).toContain(codeOf(answer));
          const head = await way.send('HEAD', path, accept());
          expect([head.status, head.body.length]).toEqual([404, 0]);
        }
      });

      test.each(['.x', '.INVALID_MANIFEST_NAME', 'x'.repeat(129)])(
        'the tag %s, which cannot exist: 404',
        async (tag) => {
          const answer = await way.send('GET', at(`manifests/${tag}`));
          expect([answer.status, codeOf(answer)]).toEqual([404, 'MANIFEST_UNKNOWN']);
        },
      );

      test.each([
        ['manifests/sha256:12', 'DIGEST_INVALID'],
        [`manifests/sha256:${'G'.repeat(64)}`, 'DIGEST_INVALID'],
      ])('the malformed reference %s: 400', async (what, code) => {
        const answer = await way.send('GET', at(what));
        expect([answer.status, codeOf(answer)]).toEqual([400, code]);
      });

      test.each(['UPPER/case', 'a..b', '-a', 'a_/b'])(
        'the malformed name %s: 400 or 404 with an error body',
        async (name) => {
          const answer = await way.send('GET', at('manifests/x', name));
          expect([400, 404]).toContain(answer.status);
          expect(['NAME_INVALID', 'NAME_UNKNOWN']).toContain(codeOf(answer));
        },
      );
    });

    describe('pulling blobs (end-2)', () => {
      const url = () => at(`blobs/${held.blob.digest}`);

      test('GET: 200, the exact bytes, their length and digest', async () => {
        const answer = await way.send('GET', url());
        expect([answer.status, digestOf(answer.body)]).toEqual([200, held.blob.digest]);
        expect(answer.headers['content-length']).toBe(String(held.blob.body.length));
        expect(answer.headers['docker-content-digest']).toBe(held.blob.digest);
        expect(answer.headers['content-encoding']).toBeUndefined();
      });

      test('HEAD: 200, the headers of GET, no body', async () => {
        const answer = await way.send('HEAD', url());
        expect([answer.status, answer.body.length]).toEqual([200, 0]);
        expect(answer.headers['content-length']).toBe(String(held.blob.body.length));
        expect(answer.headers['docker-content-digest']).toBe(held.blob.digest);
      });

      test('what is missing: 404, by GET with an error body, by HEAD without one', async () => {
        const answer = await way.send('GET', at(`blobs/${absent}`));
        expect([answer.status, codeOf(answer)]).toEqual([404, 'BLOB_UNKNOWN']);
        const head = await way.send('HEAD', at(`blobs/${absent}`));
        expect([head.status, head.body.length]).toEqual([404, 0]);
      });

      test('a malformed digest: 400 or 404', async () => {
        for (const digest of ['sha256:12', 'md5:00', 'latest']) {
          const answer = await way.send('GET', at(`blobs/${digest}`));
          expect([400, 404]).toContain(answer.status);
        }
      });

      test('Range: 206 with the part and its place (RFC 9110, 14)', async () => {
        const size = held.blob.body.length;
        for (const [range, from, to] of [
          ['bytes=0-9', 0, 10],
          [`bytes=${size - 5}-`, size - 5, size],
          ['bytes=-7', size - 7, size],
          [`bytes=3-${size * 2}`, 3, size],
        ] as const) {
          const answer = await way.send('GET', url(), { range });
          expect([answer.status, answer.headers['content-range']]).toEqual([206, `bytes ${from}-${to - 1}/${size}`]);
          expect(answer.headers['content-length']).toBe(String(to - from));
          expect(answer.body.equals(held.blob.body.subarray(from, to))).toBe(true);
        }
        expect((await way.send('GET', url())).headers['accept-ranges']).toBe('bytes');
      });

      test('a Range outside the blob: 416 with its size', async () => {
        const answer = await way.send('GET', url(), { range: `bytes=${held.blob.body.length}-` });
        expect([answer.status, answer.headers['content-range']]).toEqual([416, `bytes */${held.blob.body.length}`]);
      });
    });

    describe('listing tags (end-8)', () => {
      test('200, every tag, in order', async () => {
        const answer = await way.send('GET', at('tags/list'));
        expect([answer.status, answer.headers['content-type']]).toEqual([200, 'application/json']);
        expect(JSON.parse(answer.body.toString())).toEqual({ name: expect.any(String), tags: [...held.tags].sort() });
      });

      test('n bounds a page, and its link leads to the rest, in the shape that was used', async () => {
        const seen: string[] = [];
        let path: string | null = `${at('tags/list')}?n=2`;
        for (let pages = 0; path !== null && pages <= held.tags.length; pages++) {
          const answer: Answer = await way.send('GET', path);
          expect(answer.status).toBe(200);
          const { tags } = JSON.parse(answer.body.toString()) as { tags: string[] };
          expect(tags.length).toBeLessThanOrEqual(2);
          seen.push(...tags);
          const [link] = parseLinks(answer.headers.link ?? '');
          if (link !== undefined) expect(link.target.startsWith(`${way.base}${held.name}/tags/list?`)).toBe(true);
          path = link?.target ?? null;
        }
        expect(seen).toEqual([...held.tags].sort());
      });

      test('last starts behind a tag; n=0 is empty and has no link', async () => {
        const [first = '', ...rest] = [...held.tags].sort();
        const after = await way.send('GET', `${at('tags/list')}?last=${first}`);
        expect(JSON.parse(after.body.toString()).tags).toEqual(rest);
        const both = await way.send('GET', `${at('tags/list')}?last=${first}&n=1`);
        expect(JSON.parse(both.body.toString()).tags).toEqual(rest.slice(0, 1));
        const none = await way.send('GET', `${at('tags/list')}?n=0`);
        expect([none.status, JSON.parse(none.body.toString()).tags, none.headers.link]).toEqual([200, [], undefined]);
      });

      test('of a repository that is missing: 404', async () => {
        const answer = await way.send('GET', at('tags/list', held.absentName));
        expect([answer.status, codeOf(answer)]).toEqual([404, 'NAME_UNKNOWN']);
      });
    });

    describe('listing referrers (end-12)', () => {
      const url = () => at(`referrers/${held.manifest.digest}`);
      const list = (answer: Answer) => JSON.parse(answer.body.toString()) as { manifests: { digest: string }[] };

      test('200, an image index of everything that refers to the manifest', async () => {
        const answer = await way.send('GET', url());
        expect([answer.status, answer.headers['content-type']]).toEqual([200, OCI_INDEX]);
        const digests = list(answer).manifests.map(({ digest }) => digest);
        expect(digests.sort()).toEqual(held.referrers.map(({ digest }) => digest).sort());
        expect(nextTarget(answer.headers.link)).toBeNull();
      });

      test('an empty index, never a 404, where nothing does', async () => {
        const answer = await way.send('GET', at(`referrers/${absent}`));
        expect([answer.status, answer.headers['content-type'], list(answer).manifests]).toEqual([200, OCI_INDEX, []]);
      });

      test('filtered by artifactType, and said so, or all', async () => {
        for (const { artifactType } of held.referrers) {
          const answer = await way.send('GET', `${url()}?artifactType=${encodeURIComponent(artifactType)}`);
          expect(answer.status).toBe(200);
          const wanted = held.referrers.filter(
            (row) => answer.headers['oci-filters-applied'] === undefined || row.artifactType === artifactType,
          );
          const digests = list(answer).manifests.map(({ digest }) => digest);
          expect(digests.sort()).toEqual(wanted.map(({ digest }) => digest).sort());
        }
      });

      test('of a malformed digest: 400', async () => {
        const answer = await way.send('GET', at('referrers/sha256:12'));
        expect([answer.status, codeOf(answer)]).toEqual([400, 'DIGEST_INVALID']);
      });
    });

    describe('what is not supported', () => {
      test.each([
        ['POST', 'blobs/uploads/'],
        ['PUT', 'manifests/x'],
        ['PATCH', 'blobs/uploads/1'],
        ['DELETE', 'manifests/x'],
        ['DELETE', `blobs/${`sha256:${'0'.repeat(64)}`}`],
      ])('%s …/%s: 405 with an error body', async (method, what) => {
        const answer = await way.send(method, at(what));
        expect([answer.status, codeOf(answer)]).toEqual([405, 'UNSUPPORTED']);
      });
    });
  });
}

function digestOf(body: Buffer): string {
  return `sha256:${createHash('sha256').update(body).digest('hex')}`;
}

/** The first error's code; every error body is JSON of the shape that the specification gives. */
function codeOf(answer: Answer): string | undefined {
  expect(answer.headers['content-type']).toBe('application/json');
  const { errors } = JSON.parse(answer.body.toString()) as { errors: { code: string; message?: unknown }[] };
  for (const error of errors) expect(error.message ?? '').toBeTypeOf('string');
  return errors[0]?.code;
}
