export type MaybePromise<T> = T | Promise<T>;

/**
 * Calls `next` with the value: at once where it is there already, without the microtask that a promise costs on the path of every
 * request. What `next` throws is thrown in the first case and rejects the returned promise in the second.
 */
export function andThen<T, R>(value: MaybePromise<T>, next: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}
