import type { AccessRequest, Grant } from '../access/access.ts';
import type { ByteOrder, ByteQuota, Reservation } from '../access/quotas.ts';
import type { Channel } from './channel.ts';

/** The owner is told of so many bytes sent at a time: what it does not know yet is not counted where this process is killed. */
const TOLD_EVERY = 1024 * 1024;

/** Access as a worker has it where limits hold for all processes together: the owner decides and counts. */
export class RemoteAccess {
  readonly #channel: Channel;
  /** For while bytes are limited. */
  readonly quota: ByteQuota;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.quota = new RemoteQuota(channel);
  }

  check(request: AccessRequest): Promise<Grant> {
    return this.#channel.call<Grant>('check', request);
  }
}

class RemoteQuota implements ByteQuota {
  readonly #channel: Channel;
  /** Those whose replies run, by the owner's numbers. */
  readonly #reservations = new Map<number, RemoteReservation>();

  constructor(channel: Channel) {
    this.#channel = channel;
    channel.on('cut', ({ reservation }: { reservation: number }) => this.#reservations.get(reservation)?.cut());
  }

  async reserve(client: string, order: ByteOrder): Promise<Reservation> {
    const channel = this.#channel;
    const { reservation: id, bytes } = await channel.call<{ reservation: number; bytes: number }>('reserve', {
      client,
      order,
    });
    const reservation = new RemoteReservation(channel, id, bytes, () => this.#reservations.delete(id));
    this.#reservations.set(id, reservation);
    return reservation;
  }
}

class RemoteReservation implements Reservation {
  readonly bytes: number;
  readonly #channel: Channel;
  readonly #id: number;
  readonly #onClose: () => void;
  #untold = 0;
  #isCut = false;
  #closed = false;

  constructor(channel: Channel, id: number, bytes: number, onClose: () => void) {
    this.#channel = channel;
    this.#id = id;
    this.bytes = bytes;
    this.#onClose = onClose;
  }

  sent(bytes: number): boolean {
    this.#untold += bytes;
    if (this.#untold >= TOLD_EVERY) this.#tell();
    return !this.#isCut;
  }

  /** The owner says that no more may be sent. */
  cut(): void {
    this.#isCut = true;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
    this.#tell();
    this.#channel.tell('settle', { reservation: this.#id });
  }

  #tell(): void {
    if (this.#untold > 0) this.#channel.tell('sent', { reservation: this.#id, bytes: this.#untold });
    this.#untold = 0;
  }
}
