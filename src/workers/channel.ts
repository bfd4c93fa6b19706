import type { Server } from 'node:net';
import { decodeFailure, encodeFailure, type Failure } from './protocol.ts';

/** What a channel runs over: `process` in a worker, a `ChildProcess` in the owner, a pair of them in tests. */
export interface Port {
  /** Sends one message, and a listening socket with it where one is given; false where the other side has gone. */
  send(message: unknown, server?: Server): boolean;
  onMessage(listener: (message: unknown, server?: Server) => void): void;
  onClose(listener: () => void): void;
}

interface CallContext {
  /** Aborted when the caller gave up or the channel closed. */
  readonly signal: AbortSignal;
  /** The listening socket that was sent along. */
  readonly server: Server | undefined;
}

/** Answers one method. */
export type Handler = (params: never, context: CallContext) => unknown;

type Message =
  | { readonly t: 'call'; readonly id: number; readonly method: string; readonly params: unknown }
  | { readonly t: 'cancel'; readonly id: number }
  | { readonly t: 'ok'; readonly id: number; readonly value: unknown }
  | { readonly t: 'fail'; readonly id: number; readonly failure: Failure }
  | { readonly t: 'tell'; readonly topic: string; readonly data: unknown };

/** The other process ended in the middle of a call. */
export class ChannelClosedError extends Error {
  override readonly name = 'ChannelClosedError';
}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Calls and news between the owner and one worker, both ways over one port. Values are structured clones (Buffers, Maps and Dates survive);
 * `RegistryError` and `OperatorError` arrive as what they were.
 */
export class Channel {
  readonly #port: Port;
  readonly #handlers = new Map<string, Handler>();
  readonly #listeners = new Map<string, (data: never) => void>();
  readonly #waiting = new Map<number, Waiting>();
  readonly #serving = new Map<number, AbortController>();
  readonly #closeListeners: (() => void)[] = [];
  #nextId = 1;
  #closed = false;

  constructor(port: Port) {
    this.#port = port;
    port.onMessage((message, server) => this.#receive(message as Message, server));
    port.onClose(() => this.#close());
  }

  /** Answers calls of `method`; one handler a method. */
  handle<P, R>(method: string, handler: (params: P, context: CallContext) => R | Promise<R>): void {
    this.#handlers.set(method, handler as Handler);
  }

  /** Hears news of `topic`; one listener a topic. */
  on<D>(topic: string, listener: (data: D) => void): void {
    this.#listeners.set(topic, listener as (data: never) => void);
  }

  onClose(listener: () => void): void {
    if (this.#closed) listener();
    else this.#closeListeners.push(listener);
  }

  /**
   * An abort is passed on, and the answer awaited all the same: whatever the other side made by then must be taken and closed.
   * @param server a listening socket to be sent along; both processes accept from it then
   * @throws what the handler threw, or {@link ChannelClosedError}
   */
  call<R>(method: string, params: unknown, signal?: AbortSignal, server?: Server): Promise<R> {
    if (this.#closed) return Promise.reject(new ChannelClosedError(`the other process has ended (${method})`));
    const id = this.#nextId++;
    const answer = new Promise<R>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
    try {
      this.#send({ t: 'call', id, method, params }, server);
    } catch (error) {
      // What cannot be cloned is a mistake of the caller's; nobody will answer.
      this.#settle(id)?.reject(error as Error);
      return answer;
    }
    if (signal === undefined) return answer;
    const cancel = () => this.#send({ t: 'cancel', id });
    if (signal.aborted) cancel();
    else signal.addEventListener('abort', cancel, { once: true });
    return answer.finally(() => signal.removeEventListener('abort', cancel));
  }

  /** News without an answer; dropped where the other side has gone. */
  tell(topic: string, data: unknown): void {
    this.#send({ t: 'tell', topic, data });
  }

  #send(message: Message, server?: Server): void {
    if (!this.#closed) this.#port.send(message, server);
  }

  #receive(message: Message, server: Server | undefined): void {
    switch (message.t) {
      case 'call':
        void this.#serve(message.id, message.method, message.params, server);
        break;
      case 'cancel':
        this.#serving.get(message.id)?.abort();
        break;
      case 'ok':
        this.#settle(message.id)?.resolve(message.value as never);
        break;
      case 'fail':
        this.#settle(message.id)?.reject(decodeFailure(message.failure));
        break;
      case 'tell':
        this.#listeners.get(message.topic)?.(message.data as never);
        break;
    }
  }

  async #serve(id: number, method: string, params: unknown, server: Server | undefined): Promise<void> {
    const controller = new AbortController();
    this.#serving.set(id, controller);
    try {
      const handler = this.#handlers.get(method);
      if (handler === undefined) throw new Error(`no such method: ${method}`);
      const value = await handler(params as never, { signal: controller.signal, server });
      this.#send({ t: 'ok', id, value });
    } catch (error) {
      this.#send({ t: 'fail', id, failure: encodeFailure(error) });
    } finally {
      this.#serving.delete(id);
    }
  }

  #settle(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const controller of this.#serving.values()) controller.abort();
    for (const waiting of this.#waiting.values()) waiting.reject(new ChannelClosedError('the other process has ended'));
    this.#waiting.clear();
    for (const listener of this.#closeListeners) listener();
  }
}
