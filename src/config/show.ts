import { type Config, KEYS } from './config.ts';
import { Key, KeyList, type KeyTree } from './keys.ts';
import { valueText } from './text.ts';

/** The value of a key that is in use, as the configuration file would have it: `20GiB`, `off`, `none`. No secret is in it. */
export interface SettingText {
  readonly key: string;
  readonly value: string;
}

/** Every key in the order of its declaration. */
export function settingTexts(config: Config): SettingText[] {
  return textsOf(KEYS, config as unknown as Values, '');
}

type Values = Readonly<Record<string, unknown>>;

function textsOf(keys: KeyTree, values: Values, at: string): SettingText[] {
  return Object.entries(keys).flatMap(([name, entry]): SettingText[] => {
    const key = at === '' ? name : `${at}.${name}`;
    if (entry instanceof Key || entry instanceof KeyList) return [{ key, value: valueText(entry, values[name]) }];
    return textsOf(entry, values[name] as Values, key);
  });
}
