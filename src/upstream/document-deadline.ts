import type { AcquireOptions } from '../kit/fair-pool.ts';
import type { DocumentOrigin } from '../oci/document-reader.ts';
import { busyError } from '../oci/errors.ts';
import { SlowDocumentError } from './failures.ts';

/** The longest that a document takes in all, however steadily it comes: every endpoint, token and redirect included. */
export const DOCUMENT_MS = 60_000;

/** What the requests for one document have in common. */
export interface DocumentWork {
  readonly signal: AbortSignal;
  /** How it holds its connections: its `rest` ends the document. */
  readonly holder: Pick<AcquireOptions, 'rest' | 'askers'>;
  /** Whose turn it is read in. */
  readonly origin: DocumentOrigin;
}

/**
 * Does what is to be done for a document (a manifest, a token, a list, a HEAD) within its time.
 * @param what what is late then, in words
 * @throws {SlowDocumentError} when the time is over; {RegistryError} gatewayBusy where it was asked to rest; the signal's reason
 */
export async function asDocument<T>(
  registry: string,
  signal: AbortSignal | null,
  { ms, what, askers }: { ms: number; what: string; askers?: AcquireOptions['askers'] },
  run: (work: DocumentWork) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const onAbort = (): void => controller.abort(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  const timer = setTimeout(() => controller.abort(new SlowDocumentError(what, ms)), ms);
  try {
    const rest = (): void => controller.abort(busyError(`requests from ${registry} that take long`));
    const within = controller.signal;
    return await run({ signal: within, holder: { rest, askers }, origin: { registry, askers, signal: within } });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}
