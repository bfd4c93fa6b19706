import { createHash, type Hash } from 'node:crypto';
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
/** Blobs that begin to be fetched while another is written. */
const AHEAD = 2;

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
  const { layout, source, target, from, signal, onProgress } = options;
  const buffer = Buffer.allocUnsafe(CHUNK);
  const left = layout.pieces.filter(({ at, length }) => at + length > from.at);
  const blobs = left.filter((piece) => 'member' in piece);
  /** Those that have begun, the one that is being written first. */
  const begun: SteadyBlob[] = [];
  let next = 0;
  try {
    for (const piece of left) {
      signal.throwIfAborted();
      const start = Math.max(0, from.at - piece.at);
      if ('bytes' in piece) {
        await target.write(piece.bytes.subarray(start), piece.at + start);
        onProgress?.({ member: null, memberDone: 0, done: piece.at + piece.length });
        continue;
      }
      for (; next < blobs.length && begun.length <= AHEAD; next += 1) {
        const coming = blobs[next] as BlobPiece;
        const blob = open(source, coming, Math.max(0, from.at - coming.at), signal);
        blob.begin();
        begun.push(blob);
      }
      const part = { target, signal, onProgress, piece, start, buffer };
      const blob = begun[0] as SteadyBlob;
      const right = await copyBlob({ ...part, blob, hash: start > 0 ? from.hash : null });
      await blob.close();
      begun.shift();
      if (!right) await again({ ...part, source });
    }
  } finally {
    for (const blob of begun) await blob.close();
  }
}

type BlobPiece = Extract<Piece, { member: BlobMember }>;

function open(source: ImageSource, { member }: BlobPiece, from: number, signal: AbortSignal): SteadyBlob {
  const { registry, repository } = member.image;
  const { digest, size } = member.blob;
  return new SteadyBlob({ source, key: { registry, repository, digest }, size, from, signal });
}

interface BlobPart {
  readonly target: ArchiveTarget;
  readonly signal: AbortSignal;
  readonly onProgress: ((progress: ArchiveProgress) => void) | undefined;
  readonly piece: BlobPiece;
  /** Its first byte that is wanted. */
  readonly start: number;
  readonly buffer: Buffer;
}

/** What lay there from an earlier run may have been the wrong part, as after a loss of power: then all of the blob is read. @throws `IMAGE_DAMAGED` */
async function again({ source, ...part }: BlobPart & { readonly source: ImageSource }): Promise<void> {
  const { image, blob: descriptor } = part.piece.member;
  if (part.start > 0 && part.target.rewinds) {
    const blob = open(source, part.piece, 0, part.signal);
    try {
      if (await copyBlob({ ...part, start: 0, blob, hash: null })) return;
    } finally {
      await blob.close();
    }
  }
  throw damaged(image, `what came as ${descriptor.digest} is something else`);
}

/** Whether the digest was right. `hash` is over what comes before `start`. */
async function copyBlob(part: BlobPart & { readonly blob: SteadyBlob; readonly hash: Hash | null }): Promise<boolean> {
  const { target, onProgress, piece, start, buffer, blob } = part;
  const { member, at } = piece;
  const { digest, size } = member.blob;
  const hash = part.hash ?? createHash(digestAlgorithm(digest));
  let done = start;
  for (;;) {
    // Asked once more at its end: whether there is nothing behind it.
    const count = await fill(blob, buffer);
    if (count === 0) break;
    const bytes = buffer.subarray(0, count);
    hash.update(bytes);
    await target.write(bytes, at + done);
    done += count;
    onProgress?.({ member, memberDone: done, done: at + done });
  }
  return done === size && hash.digest('hex') === digestHex(digest);
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
