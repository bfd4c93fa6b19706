import { createTarPacker } from 'modern-tar';
import type { Digest } from '../../oci/names.ts';
import type { ImageName } from '../image-name.ts';
import type { Descriptor } from '../manifest.ts';

/** A file of an archive. */
export type Member = DocumentMember | BlobMember;

/** One that is made here, or a manifest: small, and in memory. */
export interface DocumentMember {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** One that is read from an image when its turn comes. */
export interface BlobMember {
  readonly name: string;
  readonly blob: Descriptor & { readonly size: number };
  /** The first image that has it. */
  readonly image: ImageName;
  /** What it is, for people: `layer 2 of 5`. */
  readonly label: string;
}

/** A piece of an archive, by its place. */
export type Piece =
  | { readonly at: number; readonly length: number; readonly bytes: Uint8Array }
  | { readonly at: number; readonly length: number; readonly member: BlobMember };

/** An archive before any of its blobs was read: it is the same for the same members, byte for byte. */
export interface ArchiveLayout {
  /** Without gaps, in their order. */
  readonly pieces: readonly Piece[];
  /** Bytes of the whole. */
  readonly length: number;
  /** Bytes before the first blob: they tell one archive from another. */
  readonly headLength: number;
}

/** Tar has blocks of this many bytes, and ends with two that are empty (POSIX.1-2017, *pax*, ustar Interchange Format). */
const BLOCK = 512;
const END = new Uint8Array(2 * BLOCK);
/** Nothing in an archive changes with the day that it was written on. */
const MTIME = new Date(0);

/** Puts every member in its place. */
export async function layOut(members: readonly Member[]): Promise<ArchiveLayout> {
  const pieces: Piece[] = [];
  let at = 0;
  let headLength: number | null = null;
  const add = (bytes: Uint8Array): void => {
    if (bytes.length === 0) return;
    pieces.push({ at, length: bytes.length, bytes });
    at += bytes.length;
  };
  for (const member of members) {
    const size = 'bytes' in member ? member.bytes.length : member.blob.size;
    if (!('bytes' in member)) headLength ??= at;
    add(await headerOf(member.name, size));
    if ('bytes' in member) add(member.bytes);
    else if (size > 0) {
      pieces.push({ at, length: size, member });
      at += size;
    }
    add(END.subarray(0, -size & (BLOCK - 1)));
  }
  headLength ??= at;
  add(END);
  return { pieces, length: at, headLength };
}

/** Where image layouts keep content (image-spec, *Image Layout*: Blobs). */
export function blobPath(digest: Digest): string {
  return `blobs/${digest.replace(':', '/')}`;
}

/** What stands in for content while a header is made. */
const NOTHING = new Uint8Array(8 * 1024 * 1024);

/**
 * The blocks before a member's content: one, or more where its size or its name needs them. The library writes headers only as part of archives, so
 * an archive of this member alone, of empty content, is made and its beginning taken.
 */
async function headerOf(name: string, size: number): Promise<Uint8Array> {
  const { readable, controller } = createTarPacker();
  const padded = size + (-size & (BLOCK - 1));
  const write = async (): Promise<void> => {
    const writer = controller.add({ name, size, mode: 0o644, mtime: MTIME }).getWriter();
    for (let left = size; left > 0; left -= NOTHING.length) await writer.write(NOTHING.subarray(0, left));
    await writer.close();
    controller.finalize();
  };
  const writing = write().catch((error: unknown) => controller.error(error));
  const first: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of readable as unknown as AsyncIterable<Uint8Array>) {
    if (length < 64 * BLOCK) first.push(chunk.subarray(0, 64 * BLOCK));
    length += chunk.length;
  }
  await writing;
  return Buffer.concat(first).subarray(0, length - padded - END.length);
}
