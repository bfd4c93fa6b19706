import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SecretKeys } from '../../../src/kit/sealed.ts';

const key = () => randomBytes(32).toString('base64');
const keys = (...lines: string[]) => new SecretKeys(lines.join('\n'), '/etc/keys');

describe('what is sealed', () => {
  it('opens again under the same key for the same place, and is another text each time', () => {
    const held = keys(key());
    const [one, other] = [held.seal('geheim ✓', 'registries.password:quay.io'), held.seal('geheim ✓', 'x')];
    expect(held.open(one, 'registries.password:quay.io')).toBe('geheim ✓');
    expect(one).not.toContain('geheim');
    expect(one).not.toBe(other);
    expect(held.open(held.seal('', 'x'), 'x')).toBe('');
  });

  it('does not open in another place, nor changed by one bit', () => {
    const held = keys(key());
    const sealed = held.seal('geheim', 'a');
    expect(() => held.open(sealed, 'b')).toThrow(expect.objectContaining({ code: 'SECRET_DAMAGED' }));
    const [form, id, text = ''] = sealed.split('.');
    const bytes = Buffer.from(text, 'base64url');
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => held.open(`${form}.${id}.${changed.toString('base64url')}`, 'a')).toThrow(/SECRET|decrypted/);
    }
    for (const broken of ['', 'geheim', 'v2.a.b', `${form}.${id}.AAAA`]) {
      expect(() => held.open(broken, 'a')).toThrow(expect.objectContaining({ code: 'SECRET_DAMAGED' }));
    }
  });

  it('opens under each key of the file, while the first one seals', () => {
    const [old, fresh] = [key(), key()];
    const before = keys(old);
    const both = keys('# of May', `may ${fresh}`, '', old);
    const sealed = before.seal('geheim', 'a');
    expect(both.open(sealed, 'a')).toBe('geheim');
    expect(both.isCurrent(sealed)).toBe(false);
    const again = both.seal('geheim', 'a');
    expect(both.isCurrent(again)).toBe(true);
    expect(keys(fresh).open(again, 'a')).toBe('geheim');
    expect(() => before.open(again, 'a')).toThrow(/encrypted under the key [0-9a-f]{16}, which is not in \/etc\/keys/);
  });
});

describe('a file of keys', () => {
  it.each([
    ['nothing', '', 'there is no key'],
    ['a comment alone', '# none', 'there is no key'],
    ['a short key behind a good one', `${key()}\n${randomBytes(9).toString('hex').slice(0, 15)}`, 'line 2 is no key'],
    ['a password', 'geheimes Wort', 'line 1 is no key'],
  ])('is refused with %s in it, and not repeated', (_, text, why) => {
    expect(() => keys(text)).toThrow(why);
    expect(() => keys(text)).not.toThrow('geheim');
  });

  it.each([
    ['base64', randomBytes(32).toString('base64')],
    ['base64 without its padding', randomBytes(32).toString('base64url')],
    ['hex, behind a name', `may ${randomBytes(32).toString('hex')}`],
    ['more bytes than a key has', randomBytes(48).toString('base64')],
    ['a passphrase', 'correct horse battery staple'],
    ['32 bytes that are no text', Buffer.concat([randomBytes(31), Buffer.from([0xff])])],
  ])('may have %s, which means the same key everywhere', (_, content) => {
    const [one, other] = [new SecretKeys(content, '/a'), new SecretKeys(content, '/b')];
    expect(other.open(one.seal('geheim', 'x'), 'x')).toBe('geheim');
    expect(one.ids).toHaveLength(1);
  });

  it('is refused where everybody can write it, and used with a warning where everybody can read it', () => {
    const file = join(mkdtempSync(join(tmpdir(), 'keys-')), 'keys');
    expect(() => SecretKeys.read(file)).toThrow(expect.objectContaining({ code: 'SECRET_FILE_INVALID', usage: true }));
    writeFileSync(file, key());
    for (const mode of [0o606, 0o666]) {
      chmodSync(file, mode);
      expect(() => SecretKeys.read(file)).toThrow(`mode ${mode.toString(8)}`);
    }
    for (const [mode, warning] of [
      [0o600, null],
      [0o440, null],
      [0o644, expect.stringContaining('chmod 600')],
    ] as const) {
      chmodSync(file, mode);
      expect(SecretKeys.read(file).ids).toHaveLength(1);
      expect(SecretKeys.warningOf(file)).toEqual(warning);
    }
  });
});
