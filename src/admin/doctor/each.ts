/** Runs `task` for each item, at most `width` at once, and yields the results in the order of the items. */
export async function* each<T, R>(
  items: readonly T[],
  width: number,
  task: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  let next = 0;
  const fill = (): void => {
    while (running.length < width && next < items.length) {
      const promise = task(items[next] as T);
      // Awaited in its turn; a failure meanwhile is not unhandled.
      promise.catch(() => {});
      running.push(promise);
      next += 1;
    }
  };
  for (fill(); running.length > 0; fill()) yield await (running.shift() as Promise<R>);
}
