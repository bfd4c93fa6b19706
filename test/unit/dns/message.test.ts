import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { encodeUpdate, MalformedMessage, readAnswer, sign, type TsigKey } from '../../../src/dns/message.ts';

const KEY: TsigKey = { name: 'gateway', algorithm: 'hmac-sha256', secret: Buffer.alloc(32, 7) };
const NOW = 1_700_000_000_000;
const QUESTION = encodeUpdate(0x1234, { zone: 'gw.test', name: '_acme-challenge.gw.test', value: 'v', ttl: 60 });
const MAC = sign(QUESTION, KEY, NOW).mac;
/** Messages of changed bytes; each is read or refused in well under a millisecond. */
const FUZZED = 5_000;

const name = (text: string) =>
  Buffer.concat([
    ...text.split('.').map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])),
    Buffer.alloc(1),
  ]);
const words = (...values: number[]) => Buffer.concat(values.map((value) => Buffer.from([value >> 8, value & 0xff])));

/** A server's answer as RFC 8945 §5.3 says, written here by itself. */
function answer({ id = 0x1234, code = 0, error = 0, owner = name('gateway'), key = KEY } = {}): Buffer {
  const head = words(id, 0xa800 | code, 0, 0, 0, 0);
  const time = Buffer.alloc(6);
  time.writeUIntBE(NOW / 1000, 0, 6);
  const algorithm = name('hmac-sha256');
  const mac = createHmac('sha256', key.secret)
    .update(words(MAC.length))
    .update(MAC)
    .update(head)
    .update(name('gateway'))
    .update(words(255, 0, 0))
    .update(algorithm)
    .update(time)
    .update(words(300, error, 0))
    .digest();
  const data = Buffer.concat([algorithm, time, words(300, mac.length), mac, words(id, error, 0)]);
  const record = Buffer.concat([owner, words(250, 255, 0, 0, data.length), data]);
  const counted = Buffer.from(head);
  counted.writeUInt16BE(1, 10);
  return Buffer.concat([counted, record]);
}

/** xorshift32, so that what fails fails again. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

describe('an answer to an update', () => {
  it('is genuine where it is signed with the key over this very question', () => {
    expect(readAnswer(answer(), KEY, MAC)).toEqual({ id: 0x1234, code: 0, tsigError: 0, genuine: true });
    expect(readAnswer(answer({ owner: name('GateWay') }), KEY, MAC).genuine).toBe(true);
    expect(readAnswer(answer(), KEY, Buffer.alloc(32)).genuine).toBe(false);
    expect(readAnswer(answer({ key: { ...KEY, secret: Buffer.alloc(32) } }), KEY, MAC).genuine).toBe(false);
    expect(readAnswer(answer(), { ...KEY, name: 'other' }, MAC).genuine).toBe(false);
  });

  it('tells another id, a refusal and an error of the signature', () => {
    expect(readAnswer(answer({ id: 9 }), KEY, MAC).id).toBe(9);
    expect(readAnswer(answer({ code: 5 }), KEY, MAC)).toMatchObject({ code: 5, genuine: true });
    expect(readAnswer(answer({ error: 18 }), KEY, MAC)).toMatchObject({ tsigError: 18, genuine: true });
    expect(readAnswer(words(0x1234, 0xa805, 0, 0, 0, 0), KEY, MAC)).toMatchObject({ code: 5, genuine: false });
  });

  it('is refused wherever it is cut off', () => {
    const whole = answer();
    for (let end = 0; end < whole.length; end++) {
      expect(() => readAnswer(whole.subarray(0, end), KEY, MAC), `${end} bytes`).toThrow(MalformedMessage);
    }
  });

  it.each([
    ['to itself', words(0xc00c)],
    ['to each other', words(0xc00e, 0xc00c)],
    ['through a label', Buffer.concat([Buffer.from([1, 97]), words(0xc00c)])],
    ['beyond the end', words(0xffff)],
  ])('is refused where pointers of a name lead %s', (_, owner) => {
    expect(() => readAnswer(answer({ owner }), KEY, MAC)).toThrow(MalformedMessage);
  });

  it('is refused where it counts more than it has', () => {
    for (const at of [4, 6, 8, 10]) {
      const more = answer();
      more.writeUInt16BE(0xffff, at);
      expect(() => readAnswer(more, KEY, MAC)).toThrow(MalformedMessage);
    }
  });

  it('never does anything else, whatever bytes come, and a changed result is never genuine', () => {
    const next = random(20_261_128);
    const whole = answer();
    for (let round = 0; round < FUZZED; round++) {
      const bytes =
        round % 4 === 0 ? Buffer.from(Array.from({ length: next(120) }, () => next(256))) : Buffer.from(whole);
      for (let left = 1 + next(4); left > 0 && bytes.length > 0; left--) bytes[next(bytes.length)] = next(256);
      let read: { readonly genuine: boolean } | null = null;
      try {
        read = readAnswer(bytes, KEY, MAC);
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedMessage);
      }
      // Names count alike in both cases. The id of the header is not signed, and looked at by who asked.
      if (read?.genuine === true) expect(bytes.subarray(2, 4)).toEqual(whole.subarray(2, 4));
    }
  });
});

it('writes long values as several strings, and removes one value by class NONE', () => {
  const long = encodeUpdate(1, { zone: 'gw.test', name: 'a.gw.test', value: 'x'.repeat(300), ttl: 60 });
  const data = Buffer.concat([
    Buffer.from([255]),
    Buffer.from('x'.repeat(255)),
    Buffer.from([45]),
    Buffer.from('x'.repeat(45)),
  ]);
  expect(long.subarray(-data.length)).toEqual(data);
  const gone = encodeUpdate(1, { zone: 'gw.test', name: 'a.gw.test', value: 'v', ttl: null });
  expect(gone.subarray(-12)).toEqual(Buffer.concat([words(16, 254, 0, 0, 2), Buffer.from([1, 118])]));
});
