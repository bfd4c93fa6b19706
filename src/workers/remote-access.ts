import type { AccessRequest, Grant } from '../access/access.ts';
import type { ByteOrder, ByteQuota, Reservation } from '../access/quotas.ts';
import type { Channel } from './channel.ts';

/** The owner is told of so many bytes sent at a time: what it does not know yet is not counted where this process is killed. */
const TOLD_EVERY = 1024 * 1024;

/** Access as a worker has it where limits hold for all processes together: the owner decides and counts. */
export class RemoteAccess {
  readonly #channel: Channel;
  /** Null where requests are limited and bytes are not. */
  readonly quota: ByteQuota | null;

  constructor(channel: Channel, { countsBytes }: { readonly countsBytes: boolean }) {
    this.#channel = channel;
    this.quota = countsBytes ? { reserve: (client, order) => reserve(channel, client, order) } : null;
  }

  check(request: AccessRequest): Promise<Grant> {
    return this.#channel.call<Grant>('check', request);
  }
}

async function reserve(channel: Channel, client: string, order: ByteOrder): Promise<Reservation> {
  const { reservation, bytes } = await channel.call<{ reservation: number; bytes: number }>('reserve', {
    client,
    order,
  });
  let untold = 0;
  let closed = false;
  const tell = (): void => {
    if (untold > 0) channel.tell('sent', { reservation, bytes: untold });
    untold = 0;
  };
  return {
    bytes,
    sent(count) {
      untold += count;
      if (untold >= TOLD_EVERY) tell();
    },
    close() {
      if (closed) return;
      closed = true;
      tell();
      channel.tell('settle', { reservation });
    },
  };
}
