/**
 * A text in which `*` stands for any characters, none among them, and everything else for itself. Its parts are looked for from left to right, each once,
 * so that no pattern and no text, however they were chosen, take more steps than the product of their lengths: there is nothing to go back to.
 */
export class Glob {
  readonly #first: string;
  readonly #middle: readonly string[];
  /** Null where there is no star. */
  readonly #last: string | null;

  constructor(pattern: string) {
    const [first = '', ...rest] = pattern.split('*');
    this.#first = first;
    this.#last = rest.pop() ?? null;
    this.#middle = rest.filter((part) => part !== '');
  }

  matches(text: string): boolean {
    const last = this.#last;
    if (last === null) return text === this.#first;
    if (!text.startsWith(this.#first)) return false;
    let at = this.#first.length;
    for (const part of this.#middle) {
      const found = text.indexOf(part, at);
      if (found < 0) return false;
      at = found + part.length;
    }
    return text.length - last.length >= at && text.endsWith(last);
  }

  /** Whether everything that the other pattern matches is matched here: its stars can only stand for what stars stand for here. */
  covers(pattern: string): boolean {
    return this.matches(pattern);
  }
}
