import type { ByteOrder, ByteQuota, Reservation } from '../access/quotas.ts';
import type { Channel } from './channel.ts';

/** Users, rules and limits, decided in the owner where they must hold for all processes together. */
export interface SharedAccess {
  check(request: never): unknown;
  /** A worker has let this user in. */
  used(user: string): void;
  readonly quota: ByteQuota | null;
}

const NOTHING_RESERVED = 0;

/**
 * The owner's side of one worker's access: what is set aside for the worker's replies is kept here, and given back when the worker has gone;
 * what it said of bytes that it had sent stays counted.
 */
export class AccessHost {
  readonly #access: SharedAccess;
  readonly #reservations = new Map<number, Reservation>();
  #nextId = 1;
  #gone = false;

  constructor(access: SharedAccess, channel: Channel) {
    this.#access = access;
    channel.handle('check', (request: never) => access.check(request));
    channel.on('used', ({ user }: { user: string }) => access.used(user));
    channel.handle('reserve', ({ client, order }: { client: string; order: ByteOrder }) =>
      this.#reserve(client, order),
    );
    channel.on('sent', ({ reservation, bytes }: { reservation: number; bytes: number }) => {
      if (this.#reservations.get(reservation)?.sent(bytes) === false) channel.tell('cut', { reservation });
    });
    channel.on('settle', ({ reservation }: { reservation: number }) => this.#settle(reservation));
    channel.onClose(() => {
      this.#gone = true;
      for (const id of [...this.#reservations.keys()]) this.#settle(id);
    });
  }

  async #reserve(client: string, order: ByteOrder): Promise<{ reservation: number; bytes: number }> {
    const { quota } = this.#access;
    // They were until a moment ago, and the worker does not know yet.
    if (quota === null) return { reservation: NOTHING_RESERVED, bytes: order.bytes };
    const reservation = await quota.reserve(client, order);
    const id = this.#nextId++;
    this.#reservations.set(id, reservation);
    if (this.#gone) this.#settle(id);
    return { reservation: id, bytes: reservation.bytes };
  }

  #settle(id: number): void {
    this.#reservations.get(id)?.close();
    this.#reservations.delete(id);
  }
}
