import { createHash, type Hash } from 'node:crypto';
import { OperatorError } from '../../kit/operator-error.ts';
import { digestAlgorithm, digestHex } from '../../oci/names.ts';
import type { ImageSource } from '../image-source.ts';
import { SteadyBlob } from '../steady-blob.ts';
import type { ArchiveLayout, BlobMember, Piece } from './members.ts';
import { damaged } from './selected-image.ts';

/** Where an archive goes. */
export interface ArchiveTarget {
  /** Everything before `at` was written before. Resolves when the bytes may be used for something else. */
  write(bytes: Uint8Array, at: number): Promise<void>;
  /** Whether what was written can be written once more. */
  readonly rewinds: boolean;
}

/** How far an archive is. */
export interface ArchivePoint {
  readonly at: number;
  /** Of the blob that `at` lies in, over what of it is before; null where it lies in none. */
  readonly hash: Hash | null;
}

export const BEGINNING: ArchivePoint = { at: 0, hash: null };

export interface ArchiveProgress {
  /** What is being written; null for what was made here. */
  readonly member: BlobMember | null;
  /** Bytes of it, and of the archive, that are written. */
  readonly memberDone: number;
  readonly done: number;
}

/** Bytes that are read and written at a time. */
export const CHUNK = 1024 * 1024;

/**
 * Writes an archive from a point on. Every blob is hashed on its way; one whose digest is wrong fails it, and its bytes are to be thrown away with all
 * that follows. Between one failure and the next start nothing but the target is needed.
 * @throws {SourceError}
 * @throws {OperatorError} `IMAGE_DAMAGED`; what the target throws
 */
export async function writeArchive(options: {
  readonly layout: ArchiveLayout;
  readonly source: ImageSource;
  readonly target: ArchiveTarget;
  readonly from: ArchivePoint;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ArchiveProgress) => void;
}): Promise<void> {
  const { layout, target, from, signal, onProgress } = options;
  const buffer = Buffer.allocUnsafe(CHUNK);
  for (const piece of layout.pieces) {
    const start = Math.max(0, from.at - piece.at);
    if (start >= piece.length) continue;
    signal.throwIfAborted();
    if ('bytes' in piece) {
      await target.write(piece.bytes.subarray(start), piece.at + start);
      onProgress?.({ member: null, memberDone: 0, done: piece.at + piece.length });
    } else await writeBlob({ ...options, piece, start, hash: start > 0 ? from.hash : null, buffer });
  }
}

interface BlobPart {
  readonly source: ImageSource;
  readonly target: ArchiveTarget;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ArchiveProgress) => void;
  readonly piece: Extract<Piece, { member: BlobMember }>;
  /** Its first byte that is wanted, and the hash over those before. */
  readonly start: number;
  readonly hash: Hash | null;
  readonly buffer: Buffer;
}

async function writeBlob(part: BlobPart): Promise<void> {
  const { image, blob } = part.piece.member;
  if (await copyBlob(part)) return;
  // What lay there from an earlier run may have been the wrong part, as after a loss of power.
  if (part.start > 0 && part.target.rewinds && (await copyBlob({ ...part, start: 0, hash: null }))) return;
  throw damaged(image, `what came as ${blob.digest} is something else; nothing of it was kept`);
}

/** Whether the digest was right. */
async function copyBlob({
  source,
  target,
  signal,
  onProgress,
  piece,
  start,
  hash: before,
  buffer,
}: BlobPart): Promise<boolean> {
  const { member, at } = piece;
  const { digest, size } = member.blob;
  const { registry, repository } = member.image;
  const hash = before ?? createHash(digestAlgorithm(digest));
  const blob = new SteadyBlob({ source, key: { registry, repository, digest }, size, from: start, signal });
  try {
    let done = start;
    while (done < size) {
      const count = await fill(blob, buffer);
      if (count === 0) throw new OperatorError('IMAGE_DAMAGED', `${digest} ended early`);
      const bytes = buffer.subarray(0, count);
      hash.update(bytes);
      await target.write(bytes, at + done);
      done += count;
      onProgress?.({ member, memberDone: done, done: at + done });
    }
    // Asked once more: whether there is nothing behind it.
    await blob.pull(buffer);
  } finally {
    await blob.close();
  }
  return hash.digest('hex') === digestHex(digest);
}

/** As much as there is, up to the whole buffer: few large writes in place of many small ones. */
async function fill(blob: SteadyBlob, buffer: Buffer): Promise<number> {
  let length = 0;
  while (length < buffer.length) {
    const count = await blob.pull(buffer.subarray(length));
    if (count === 0) break;
    length += count;
  }
  return length;
}
