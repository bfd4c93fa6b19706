import { parentPort } from 'node:worker_threads';
import { type Question, READINGS, type ReadingName } from './documents.ts';

/** A document to be read. */
export interface DocumentMessage {
  readonly name: ReadingName;
  readonly bytes: Uint8Array;
  readonly question: Question<ReadingName>;
}

// The thread in which large documents are read: one at a time, each answered with its reading.
parentPort?.on('message', ({ name, bytes, question }: DocumentMessage) => {
  parentPort?.postMessage(READINGS[name](bytes, question as never));
});
