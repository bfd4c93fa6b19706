/**
 * Goes on with a value that may be here already: at once then, without the turn that a promise costs. What `next` throws is thrown, or
 * rejects the promise that is returned, as the value was here or not.
 */
export function after<T, R>(value: T | Promise<T>, next: (value: T) => R | Promise<R>): R | Promise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}
