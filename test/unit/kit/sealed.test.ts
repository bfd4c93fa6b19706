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
    ['a short key', randomBytes(31).toString('base64'), 'line 1 is no key'],
    ['a long key', `${key()}\n${randomBytes(48).toString('base64')}`, 'line 2 is no key'],
    ['a password', 'geheimes Wort', 'line 1 is no key'],
  ])('is refused with %s in it, and not repeated', (_, text, why) => {
    expect(() => keys(text)).toThrow(why);
    expect(() => keys(text)).not.toThrow('geheim');
  });

  it('is refused where others can read it, its group excepted', () => {
    const file = join(mkdtempSync(join(tmpdir(), 'keys-')), 'keys');
    expect(() => SecretKeys.read(file)).toThrow(expect.objectContaining({ code: 'SECRET_FILE_INVALID' }));
    writeFileSync(file, key());
    for (const mode of [0o644, 0o606, 0o660]) {
      chmodSync(file, mode);
      expect(() => SecretKeys.read(file)).toThrow(`mode ${mode.toString(8)}`);
    }
    for (const mode of [0o600, 0o400, 0o440]) {
      chmodSync(file, mode);
      expect(SecretKeys.read(file).ids).toHaveLength(1);
    }
  });
});
