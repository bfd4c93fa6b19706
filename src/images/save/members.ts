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

/** The beginning of content that stands in for a member's while its header is made: no block of a header is like it. */
const CONTENT = new Uint8Array(BLOCK).fill(0xff);

/**
 * The blocks before a member's content: one, or more where its size or its name needs them. The library writes headers only as part of archives, so
 * an archive of this member alone is begun, and what comes before its content taken: a size may be a lie of a TiB.
 */
async function headerOf(name: string, size: number): Promise<Uint8Array> {
  const { readable, controller } = createTarPacker();
  const content = controller.add({ name, size, mode: 0o644, mtime: MTIME });
  const header: Uint8Array[] = [];
  const reader = readable.getReader();
  if (size === 0) {
    await content.close();
    controller.finalize();
  } else {
    // What is not written any more is of no interest.
    content
      .getWriter()
      .write(CONTENT.subarray(0, size))
      .catch(() => {});
  }
  for (;;) {
    const { value, done } = await reader.read();
    if (done || Buffer.compare(value, CONTENT.subarray(0, size)) === 0) break;
    header.push(value);
  }
  await reader.cancel();
  const bytes = Buffer.concat(header);
  return size === 0 ? bytes.subarray(0, -END.length) : bytes;
}
