import type { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  type S3Client,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { type BlobTier, type ListedObject, MissingObject, WrongObject } from '../cache/blob-tier.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import type { Digest } from '../oci/names.ts';
import { BodySource } from './body-source.ts';
import { createClient, type S3Config } from './client.ts';
import { isMissing, isTooShort, troubleOf } from './errors.ts';
import { Keys } from './keys.ts';
import { upload } from './upload.ts';

/** A shared second level in a bucket of an S3 store. */
export class S3Tier implements BlobTier {
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #keys: Keys;

  constructor(config: S3Config) {
    this.#client = createClient(config);
    this.#bucket = config.bucket;
    this.#keys = new Keys(config.prefix);
  }

  async stat(digest: Digest, signal: AbortSignal): Promise<{ readonly size: number } | null> {
    try {
      const command = new HeadObjectCommand(this.#target(digest));
      const { ContentLength } = await this.#client.send(command, { abortSignal: signal });
      if (ContentLength === undefined) throw new Error(`the store does not say how long ${digest} is`);
      return { size: ContentLength };
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
  }

  async open(digest: Digest, { from, to }: Extent, signal: AbortSignal): Promise<ByteSource> {
    const command = new GetObjectCommand({ ...this.#target(digest), Range: `bytes=${from}-${to - 1}` });
    try {
      const { Body, ContentLength, ContentRange } = await this.#client.send(command, { abortSignal: signal });
      const body = Body as Readable | undefined;
      if (body === undefined) throw new Error(`the store gave no body for ${digest}`);
      // An object that is shorter than what was stored is answered with less, or from the first byte on.
      if (ContentLength !== to - from || !isFrom(ContentRange, from)) {
        body.destroy();
        throw new WrongObject(
          `the store gave ${ContentRange ?? `${ContentLength} bytes`} for bytes ${from}-${to - 1} of ${digest}`,
        );
      }
      return new BodySource(body, to - from);
    } catch (error) {
      if (isMissing(error)) throw new MissingObject(digest);
      if (isTooShort(error)) throw new WrongObject(`the store has fewer than ${from + 1} bytes of ${digest}`);
      throw error;
    }
  }

  store(digest: Digest, source: ByteSource, signal: AbortSignal): Promise<void> {
    return upload(this.#client, this.#target(digest), source, signal);
  }

  async remove(digests: readonly Digest[], signal: AbortSignal): Promise<void> {
    if (digests.length === 0) return;
    const { Errors = [] } = await this.#client.send(
      new DeleteObjectsCommand({
        Bucket: this.#bucket,
        Delete: { Objects: digests.map((digest) => ({ Key: this.#keys.of(digest) })), Quiet: true },
      }),
      { abortSignal: signal },
    );
    const [first] = Errors;
    if (first !== undefined && first.Code !== 'NoSuchKey') {
      throw new Error(`the store did not remove ${first.Key}: ${first.Message ?? first.Code}`);
    }
  }

  async list(
    after: Digest | null,
    limit: number,
    signal: AbortSignal,
  ): Promise<{ readonly objects: readonly ListedObject[]; readonly last: boolean }> {
    const { Contents = [], IsTruncated = false } = await this.#client.send(
      new ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: this.#keys.prefix,
        MaxKeys: limit,
        ...(after === null ? {} : { StartAfter: this.#keys.of(after) }),
      }),
      { abortSignal: signal },
    );
    const objects = Contents.flatMap(({ Key = '', Size = 0, LastModified }): ListedObject[] => {
      const digest = this.#keys.digest(Key);
      return digest === null ? [] : [{ digest, size: Size, modified: LastModified?.getTime() ?? 0 }];
    });
    return { objects, last: !IsTruncated };
  }

  link(digest: Digest, seconds: number): Promise<string> {
    return getSignedUrl(this.#client, new GetObjectCommand(this.#target(digest)), { expiresIn: seconds });
  }

  async clearLeftovers(before: number, signal: AbortSignal): Promise<number> {
    let cleared = 0;
    for (let key: string | undefined, id: string | undefined, more = true; more; ) {
      const page = await this.#client.send(
        new ListMultipartUploadsCommand({
          Bucket: this.#bucket,
          Prefix: this.#keys.prefix,
          ...(key === undefined ? {} : { KeyMarker: key, UploadIdMarker: id }),
        }),
        { abortSignal: signal },
      );
      for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
        if (Key === undefined || this.#keys.digest(Key) === null || (Initiated?.getTime() ?? 0) >= before) continue;
        await this.#client.send(new AbortMultipartUploadCommand({ Bucket: this.#bucket, Key, UploadId }), {
          abortSignal: signal,
        });
        cleared++;
      }
      more = page.IsTruncated === true && page.NextKeyMarker !== undefined;
      key = page.NextKeyMarker;
      id = page.NextUploadIdMarker;
    }
    return cleared;
  }

  async check(signal: AbortSignal): Promise<ReturnType<typeof troubleOf> | null> {
    try {
      await this.#client.send(new HeadBucketCommand({ Bucket: this.#bucket }), { abortSignal: signal });
      // Unlike a HEAD its refusal has a reason.
      await this.list(null, 1, signal);
      return null;
    } catch (error) {
      return troubleOf(error);
    }
  }

  close(): void {
    this.#client.destroy();
  }

  #target(digest: Digest): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.#bucket, Key: this.#keys.of(digest) };
  }
}

/** Whether an answer begins at this byte; a store may give the whole object without saying from where. */
function isFrom(contentRange: string | undefined, from: number): boolean {
  return contentRange === undefined ? from === 0 : contentRange.startsWith(`bytes ${from}-`);
}
