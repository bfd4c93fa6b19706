import { statfsSync } from 'node:fs';
import { CacheError } from './blob-cache.ts';

/** Bytes and files. */
export interface Room {
  readonly bytes: number;
  readonly files: number;
}

export function sum(one: Room, other: Room): Room {
  return { bytes: one.bytes + other.bytes, files: one.files + other.files };
}

/** A disk that cannot even say what is free will fail the write, which is dealt with there. */
export const UNKNOWN: Room = { bytes: Number.POSITIVE_INFINITY, files: Number.POSITIVE_INFINITY };

/**
 * What this user may still write on the file system of a path. Synchronous: the first byte of every fill waits for it, and it takes
 * microseconds. A file system that makes its inodes as they are needed says that it has none at all.
 */
export function freeOf(path: string): Room {
  try {
    const { bavail, bsize, files, ffree } = statfsSync(path);
    return { bytes: bavail * bsize, files: files === 0 ? Number.POSITIVE_INFINITY : ffree };
  } catch {
    return UNKNOWN;
  }
}

/** What a file system can run out of and an eviction gives back: bytes, files, and what one user may have of them. `SQLITE_FULL` is the same, met by the index. */
const ROOM_CODES: ReadonlySet<unknown> = new Set(['ENOSPC', 'EDQUOT', 'SQLITE_FULL']);

export function isForWantOfRoom(error: unknown): boolean {
  const { code, cause } = error as { readonly code?: unknown; readonly cause?: unknown };
  return ROOM_CODES.has(code) || (error instanceof CacheError && cause !== undefined && isForWantOfRoom(cause));
}

/** Why a fill ended: there was no room for the rest, for now. */
export function lacksRoom(error: CacheError): boolean {
  return error.reason === 'no-room' || error.reason === 'min-free' || isForWantOfRoom(error);
}
