/** Documents of registries nest less than ten levels deep; what nests without end would overflow the stack of whoever walks it. */
const MAX_DEPTH = 64;
/** Values in one document: a list of 8 MiB with tags of 7 characters has 800,000. Each takes some 50 bytes once it is parsed. */
const MAX_VALUES = 1_000_000;

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPENING = new Set([0x5b, 0x7b]);
const CLOSING = new Set([0x5d, 0x7d]);

/**
 * Parses JSON that a stranger wrote, bounded in depth and in the number of values, which are counted before anything is built.
 * @throws {SyntaxError} for what is no JSON, or beyond the bounds
 */
function parseJson(bytes: Uint8Array): unknown {
  requireBounds(bytes);
  return JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
}

/** The JSON object that the bytes are; null for anything else. */
export function parseJsonObject(bytes: Uint8Array): Readonly<Record<string, unknown>> | null {
  try {
    const value = parseJson(bytes);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function requireBounds(bytes: Uint8Array): void {
  let depth = 0;
  let values = 1;
  let inString = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (inString) {
      if (byte === BACKSLASH) at++;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) inString = true;
    else if (byte === COMMA) values++;
    else if (OPENING.has(byte)) {
      values++;
      depth++;
    } else if (CLOSING.has(byte)) depth--;
    if (depth > MAX_DEPTH) throw new SyntaxError(`JSON nested more than ${MAX_DEPTH} levels deep`);
    if (values > MAX_VALUES) throw new SyntaxError(`JSON with more than ${MAX_VALUES} values`);
  }
}
