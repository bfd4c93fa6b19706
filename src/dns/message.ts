import { createHmac, timingSafeEqual } from 'node:crypto';

/**
 * As much of the DNS wire format as a signed update of one TXT record takes (RFC 1035 §4, RFC 2136, RFC 8945). Questions are asked with
 * Node's own resolver; packages that read and write DNS messages know neither class NONE nor the record that signs.
 */

const TYPE = { soa: 6, txt: 16, tsig: 250 } as const;
const CLASS = { in: 1, none: 254, any: 255 } as const;
const UPDATE = 5;
const HEADER = 12;
/** Seconds by which the clocks of both may differ: what RFC 8945 §10 recommends. */
const FUDGE = 300;
/** RFC 1035 §3.3: of one string in a TXT record. */
const STRING_MAX = 255;
/** RFC 1035 §2.3.4: of a name on the wire, so that a loop of pointers ends. */
const NAME_MAX = 255;

export type TsigAlgorithm = 'hmac-sha256' | 'hmac-sha384' | 'hmac-sha512';

export interface TsigKey {
  readonly name: string;
  readonly algorithm: TsigAlgorithm;
  readonly secret: Buffer;
}

export interface TxtUpdate {
  readonly zone: string;
  readonly name: string;
  readonly value: string;
  /** Seconds; null removes this one value, which is no error where it is not there (RFC 2136 §2.5.4). */
  readonly ttl: number | null;
}

/** A message that its reader cannot make sense of. */
export class MalformedMessage extends Error {
  override readonly name = 'MalformedMessage';
}

/** An update of one TXT record, not signed. @param id 16 bits, at random */
export function encodeUpdate(id: number, { zone, name, value, ttl }: TxtUpdate): Buffer {
  const header = Buffer.alloc(HEADER);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(UPDATE << 11, 2);
  // One zone, no prerequisite, one record to change.
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(1, 8);
  const section = Buffer.concat([encodeName(zone), integers(TYPE.soa, CLASS.in)]);
  return Buffer.concat([
    header,
    section,
    record(name, TYPE.txt, ttl === null ? CLASS.none : CLASS.in, ttl ?? 0, txt(value)),
  ]);
}

export interface Signed {
  readonly message: Buffer;
  readonly mac: Buffer;
}

/** @param now epoch milliseconds */
export function sign(message: Buffer, key: TsigKey, now: number): Signed {
  const time = timeField(now);
  const fields = { time, fudge: FUDGE, error: 0, other: Buffer.alloc(0) };
  const mac = macOf([message], key, fields);
  const data = Buffer.concat([
    encodeName(key.algorithm),
    ...[time, integers(FUDGE, mac.length), mac],
    // The identifier once more, since forwarders change that of the header.
    ...[message.subarray(0, 2), integers(0, 0)],
  ]);
  const counted = Buffer.from(message);
  counted.writeUInt16BE(counted.readUInt16BE(10) + 1, 10);
  return { message: Buffer.concat([counted, record(key.name, TYPE.tsig, CLASS.any, 0, data)]), mac };
}

export interface UpdateAnswer {
  readonly id: number;
  /** RFC 2136 §2.2: 0 is done. */
  readonly code: number;
  /** Of its signature (RFC 8945 §3): 16 BADSIG, 17 BADKEY, 18 BADTIME; 0 where there is none. */
  readonly tsigError: number;
  /** Signed with the key of the question. */
  readonly genuine: boolean;
}

/** @param mac of the question. @throws {MalformedMessage} */
export function readAnswer(message: Buffer, key: TsigKey, mac: Buffer): UpdateAnswer {
  try {
    const [id, code] = [message.readUInt16BE(0), message.readUInt16BE(2) & 0x0f];
    const tsig = findTsig(message);
    if (tsig === null) return { id, code, tsigError: 0, genuine: false };
    const genuine =
      tsig.name === key.name.toLowerCase() &&
      tsig.algorithm === key.algorithm &&
      isSame(tsig.mac, macOf([integers(mac.length), mac, tsig.unsigned], key, tsig));
    return { id, code, tsigError: tsig.error, genuine };
  } catch (error) {
    if (error instanceof RangeError) throw new MalformedMessage('it ends too early');
    throw error;
  }
}

interface TsigFields {
  /** 48 bits, seconds since 1970. */
  readonly time: Buffer;
  readonly fudge: number;
  readonly error: number;
  readonly other: Buffer;
}

interface Tsig extends TsigFields {
  readonly name: string;
  readonly algorithm: string;
  readonly mac: Buffer;
  /** The message as it was before it was signed. */
  readonly unsigned: Buffer;
}

/** RFC 8945 §4.3.3: what is signed, then the signature's own fields in canonical form. */
function macOf(parts: readonly Buffer[], { name, algorithm, secret }: TsigKey, fields: TsigFields): Buffer {
  const hmac = createHmac(algorithm.replace('hmac-', ''), secret);
  for (const part of parts) hmac.update(part);
  hmac
    .update(encodeName(name))
    .update(integers(CLASS.any, 0, 0))
    .update(encodeName(algorithm));
  hmac
    .update(fields.time)
    .update(integers(fields.fudge, fields.error, fields.other.length))
    .update(fields.other);
  return hmac.digest();
}

/** The record that signs, which is the last one of all (RFC 8945 §5.1). */
function findTsig(message: Buffer): Tsig | null {
  const count = (at: number) => message.readUInt16BE(at);
  let at = HEADER;
  for (let left = count(4); left > 0; left--) at = readName(message, at).end + 4;
  const records = count(6) + count(8) + count(10);
  for (let left = records; left > 1; left--) at = recordAt(message, at).end;
  if (count(10) === 0) return null;
  const { name, type, data } = recordAt(message, at);
  if (type !== TYPE.tsig) return null;
  const algorithm = readName(message, data);
  let next = algorithm.end;
  const take = (length: number): Buffer => {
    if (next + length > message.length) throw new MalformedMessage('it ends within its signature');
    next += length;
    return message.subarray(next - length, next);
  };
  const time = take(6);
  const fudge = take(2).readUInt16BE();
  const mac = take(take(2).readUInt16BE());
  const id = take(2);
  const error = take(2).readUInt16BE();
  const other = take(take(2).readUInt16BE());
  const unsigned = Buffer.from(message.subarray(0, at));
  id.copy(unsigned, 0);
  unsigned.writeUInt16BE(count(10) - 1, 10);
  return { name, algorithm: algorithm.name, time, fudge, mac, error, other, unsigned };
}

function recordAt(message: Buffer, at: number): { name: string; type: number; data: number; end: number } {
  const { name, end } = readName(message, at);
  const data = end + 10;
  return { name, type: message.readUInt16BE(end), data, end: data + message.readUInt16BE(end + 8) };
}

function readName(message: Buffer, start: number): { name: string; end: number } {
  const labels: string[] = [];
  let [at, end] = [start, -1];
  for (let size = 0; size <= NAME_MAX; ) {
    const length = message.readUInt8(at);
    if (length >= 0xc0) {
      if (end === -1) end = at + 2;
      at = message.readUInt16BE(at) & 0x3fff;
      size += 2;
      continue;
    }
    if (length === 0) return { name: labels.join('.').toLowerCase(), end: end === -1 ? at + 1 : end };
    labels.push(message.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
    size += 1 + length;
  }
  throw new MalformedMessage('a name in it does not end');
}

/** In lower case, not compressed. */
function encodeName(name: string): Buffer {
  const labels = name
    .toLowerCase()
    .split('.')
    .filter((label) => label !== '');
  return Buffer.concat([
    ...labels.map((label) => Buffer.from(`${String.fromCharCode(label.length)}${label}`, 'latin1')),
    Buffer.alloc(1),
  ]);
}

function record(name: string, type: number, klass: number, ttl: number, data: Buffer): Buffer {
  const head = Buffer.alloc(10);
  head.writeUInt16BE(type, 0);
  head.writeUInt16BE(klass, 2);
  head.writeUInt32BE(ttl, 4);
  head.writeUInt16BE(data.length, 8);
  return Buffer.concat([encodeName(name), head, data]);
}

function txt(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1');
  const strings: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += STRING_MAX) {
    const string = bytes.subarray(at, at + STRING_MAX);
    strings.push(Buffer.from([string.length]), string);
  }
  return Buffer.concat(strings);
}

/** 16 bits each, in network order. */
function integers(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, 2 * index);
  return bytes;
}

function timeField(now: number): Buffer {
  const bytes = Buffer.alloc(6);
  bytes.writeUIntBE(Math.floor(now / 1000), 0, 6);
  return bytes;
}

function isSame(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}
