import type { ByteQuota, Reservation } from '../access/quotas.ts';
import { andThen, type MaybePromise } from '../kit/async.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Reply } from '../proxy/reply.ts';

/** Of a body whose length nobody knows so much is set aside at a time: some hundred questions for a large layer, and little that other pulls miss. */
const STEP = 1024 * 1024;

type Body = Uint8Array | ByteSource;

/** A body that its client's quota has room for. */
export interface AdmittedBody {
  readonly body: Body;
  /** To be told what was sent, and closed; null where the body itself counts what is read of it. */
  readonly reservation: Reservation | null;
}

/**
 * Sets a body aside in its client's quota, whole where its length is known; else it is counted as it goes, and cut where nothing is left.
 * @throws {RegistryError} tooManyRequests, at once or later; the body is closed then
 */
export function admitBody(
  quota: ByteQuota,
  client: string,
  { body, from }: { readonly body: Body; readonly from: Reply['from'] },
  length: number | undefined,
): MaybePromise<AdmittedBody> {
  const fetched = from === 'upstream';
  const refused = (error: unknown): never => {
    if (!(body instanceof Uint8Array)) void body.close();
    throw error;
  };
  const admit = (reservation: Reservation): AdmittedBody =>
    length !== undefined || body instanceof Uint8Array
      ? { body, reservation }
      : { body: new MeteredSource(body, reservation, () => quota.reserve(client, step(fetched))), reservation: null };
  try {
    const order = length === undefined ? step(fetched) : { bytes: length, fetched };
    const reserved = quota.reserve(client, order);
    return andThen(reserved instanceof Promise ? reserved.catch(refused) : reserved, admit);
  } catch (error) {
    return refused(error);
  }
}

function step(fetched: boolean) {
  return { bytes: STEP, fetched, partly: true };
}

/** A body of unknown length, counted as it is read. */
class MeteredSource implements ByteSource {
  readonly length = undefined;
  readonly #inner: ByteSource;
  readonly #more: () => MaybePromise<Reservation>;
  #reservation: Reservation;
  #left: number;
  #closed = false;

  constructor(inner: ByteSource, first: Reservation, more: () => MaybePromise<Reservation>) {
    this.#inner = inner;
    this.#more = more;
    this.#reservation = first;
    this.#left = first.bytes;
  }

  async pull(into: Uint8Array): Promise<number> {
    if (this.#left === 0 && !(await this.#goOn())) return 0;
    const count = await this.#inner.pull(into.subarray(0, Math.min(into.length, this.#left)));
    this.#left -= count;
    // What others have used up meanwhile is not there for the next piece.
    if (!this.#reservation.sent(count)) this.#left = 0;
    return count;
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#reservation.close();
    return this.#inner.close();
  }

  /** False at the end of the body. @throws {TruncatedError} where it goes on and nothing is left for it */
  async #goOn(): Promise<boolean> {
    this.#reservation.close();
    try {
      this.#reservation = await this.#more();
    } catch (cause) {
      if ((await this.#inner.pull(new Uint8Array(1))) === 0) return false;
      throw new TruncatedError("the client's quota ends in the middle of the body", { cause });
    }
    this.#left = this.#reservation.bytes;
    if (this.#closed) this.#reservation.close();
    return true;
  }
}
