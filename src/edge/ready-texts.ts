/** Longest body that is kept as a text as well; images’ manifests are shorter. */
const MAX_BYTES = 16 * 1024;

/**
 * Bodies that are sent again and again, as texts of one character a byte (latin1). Node puts a header and a text together into one
 * write, where a buffer needs three steps: that is a tenth of what a manifest costs. A text lives as long as its body.
 */
export class ReadyTexts {
  readonly #texts = new WeakMap<Uint8Array, string | null>();

  /** Null for what is long or sent for the first time; a text is to be sent as `latin1`. */
  of(body: Uint8Array): string | null {
    if (body.length > MAX_BYTES) return null;
    const known = this.#texts.get(body);
    if (typeof known === 'string') return known;
    if (known === undefined) {
      this.#texts.set(body, null);
      return null;
    }
    const text = Buffer.from(body.buffer, body.byteOffset, body.length).toString('latin1');
    this.#texts.set(body, text);
    return text;
  }
}
