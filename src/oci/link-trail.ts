import { createHash } from 'node:crypto';

// Some registries' links lead in a circle, or to the same page under one name after the other. The gateway keeps nothing of a client that walks a
// list, so each link carries the pages that the client has come through.

/** Characters of a mark: 48 bits, by which two of a few hundred pages are taken for the same once in billions of lists. */
const MARK_LENGTH = 8;
/** Marks in a trail. Its link still fits into the 8 KiB that proxies take as a URL; with the usual 100 tags a page, 25,000 tags. */
const MAX_MARKS = 256;

/** The pages that a client has come through, as a link carries them: one mark for each, the first page first. */
export type Trail = string;

/** Names the content of a page, or its address. */
export function markOf(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('base64url').slice(0, MARK_LENGTH);
}

/** A trail as a query has it; an empty one for what this gateway cannot have written. */
export function parseTrail(text: string | null): Trail {
  const isTrail = text !== null && text.length <= MAX_MARKS * MARK_LENGTH && text.length % MARK_LENGTH === 0;
  return isTrail && /^[\w-]*$/.test(text) ? text : '';
}

/** @param mark empty: of what is nothing, which is on none */
export function isOnTrail(trail: Trail, mark: string): boolean {
  if (mark === '') return false;
  for (let at = 0; at < trail.length; at += MARK_LENGTH) if (trail.startsWith(mark, at)) return true;
  return false;
}

/** A full trail keeps its first page, to which most circles lead back, and the newest ones. */
export function withMark(trail: Trail, mark: string): Trail {
  if (trail.length < MAX_MARKS * MARK_LENGTH) return trail + mark;
  return trail.slice(0, MARK_LENGTH) + trail.slice(2 * MARK_LENGTH) + mark;
}
