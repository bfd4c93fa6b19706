/** What is made of several programs keeps each of them with this, so that all end together. */
interface Parts {
  /** Closed with the rest, whatever fails after it. */
  keep<T extends { close(): Promise<void> }>(starting: Promise<T>): Promise<T>;
  /** Done at the end, once what was begun later has ended. */
  defer(end: () => void): void;
}

/** Makes it, with a `close` that ends its parts, the last first; where one of them does not start, those before it are ended at once. */
export async function ofParts<T extends object>(
  make: (parts: Parts) => Promise<T>,
): Promise<T & { close(): Promise<void> }> {
  const ends: (() => unknown)[] = [];
  const close = async (): Promise<void> => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  try {
    const made = await make({
      async keep(starting) {
        const one = await starting;
        ends.push(() => one.close());
        return one;
      },
      defer: (end) => void ends.push(end),
    });
    return { ...made, close };
  } catch (error) {
    await close();
    throw error;
  }
}
