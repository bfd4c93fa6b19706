import type { BlobKey, Digest } from '../../oci/names.ts';
import { canHaveSize } from '../../oci/transfer.ts';
import type { UpstreamContext } from '../context.ts';
import { InvalidResponseError } from '../failures.ts';
import { type BlobRequest, requestBlob } from '../request.ts';
import { cutOff, type UpstreamResponse } from '../responses.ts';
import type { Route } from '../upstream.ts';

/**
 * For how long an answer is waited for before the same is asked once more beside, ms. Some registries lose a request now and then, and answer
 * the next one at once. Slow links answer later than this too, so that the first goes on.
 */
export const PATIENCE = 10_000;
/** Within a body that broke off: the registry has answered before, and a client waits in the middle of its blob. */
export const RESUMING_PATIENCE = 3_000;
/** For how long the one beside is waited for before it is renewed, ms: a registry that was silent for a while and is well again answers soon. */
const RENEW_MS = 3_000;

/**
 * Requests a blob or a range of it; resolves to the response whatever its status. Where no answer begins for long, the same is requested once
 * more beside, and that again and again, until the first one's stall timeout: whichever is answered is used.
 */
export function askForBlob(
  context: UpstreamContext,
  route: Route,
  endpoint: URL,
  key: BlobKey,
  request: BlobRequest,
  patience = PATIENCE,
): Promise<UpstreamResponse> {
  const { requester, config } = context;
  return new Promise((resolve, reject) => {
    let settled = false;
    /** Those that have no answer yet. */
    const waiting = new Set<AbortController>();
    const settle = (winner: AbortController | null): void => {
      settled = true;
      clearTimeout(timer);
      for (const other of waiting) if (other !== winner) other.abort(new Error('another request was answered first'));
    };
    const send = (purpose: BlobRequest['purpose'], isFirst: boolean): AbortController => {
      const own = new AbortController();
      waiting.add(own);
      const signal = AbortSignal.any([request.signal, own.signal]);
      requestBlob(requester, route, endpoint, key, { ...request, signal, purpose }).then(
        (response) => {
          if (settled) cutOff(response.body);
          else {
            settle(own);
            resolve(response);
          }
        },
        (error: unknown) => {
          waiting.delete(own);
          // One beside that fails says nothing about the first.
          if (settled || !(isFirst || request.signal.aborted)) return;
          settle(null);
          reject(error);
        },
      );
      return own;
    };
    let beside: AbortController | null = null;
    const sendBeside = (): void => {
      beside?.abort(new Error('it had no answer for long'));
      // The caller's permit, if any, is that of the first.
      beside = send(request.purpose ?? 'segment', false);
      timer = setTimeout(sendBeside, RENEW_MS);
    };
    // Well before the stall timeout, which ends the first.
    let timer = setTimeout(sendBeside, Math.min(patience, config.stallTimeout / 2));
    send(request.purpose, true);
  });
}

/** @throws {InvalidResponseError} for a size that a blob of this digest cannot have */
export function requirePossibleSize(digest: Digest, size: number | undefined): void {
  if (!canHaveSize(digest, size)) throw new InvalidResponseError(`${size} bytes for ${digest}`);
}
