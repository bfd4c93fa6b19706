import { RegistryError } from '../oci/errors.ts';
import type { Reply } from './reply.ts';

/**
 * How long a request that came through another gateway waits before it is looked at whether it has come round in a circle, ms. Two gateways that lead
 * to each other, asked for the same at the same time, both wait for what they asked before: neither request names the gateway that it meets. A
 * registry that only is slow is asked by one more HEAD.
 */
const LOOK_AFTER_MS = 1_000;

/**
 * The reply, unless none comes for long and a request of its own, which names all gateways on the way, comes back to one of them.
 * @param ask asks the registry about the same at no cost, beside what is under way
 * @throws {RegistryError} upstreamLoop; what `replying` throws
 */
export function unlessLoop(replying: Promise<Reply>, ask: () => Promise<unknown>): Promise<Reply> {
  return new Promise((resolve, reject) => {
    let ended = false;
    const look = setTimeout(() => {
      // What else it says, the reply itself will say.
      ask().catch((error: unknown) => {
        if (!(error instanceof RegistryError) || error.kind !== 'upstreamLoop') return;
        ended = true;
        reject(error);
      });
    }, LOOK_AFTER_MS);
    replying
      .then((reply) => {
        const { body } = reply;
        if (ended && body !== null && 'close' in body) void body.close();
        resolve(reply);
      }, reject)
      .finally(() => clearTimeout(look));
  });
}
