/** What the page is written in. */
export type Language = 'en' | 'zh';

/** As HTML and HTTP name it (BCP 47). */
export const LANGUAGE_TAGS: Record<Language, string> = { en: 'en', zh: 'zh-CN' };

/** The language that a person asked for (`?lang=`), else the one that their browser prefers (RFC 9110 §12.5.4); English where neither says. */
export function languageOf(asked: string | undefined, accept: string | undefined): Language {
  if (asked === 'en' || asked === 'zh') return asked;
  const ranges = (accept ?? '').split(',').map((part) => {
    const [range = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
    const weight = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2);
    return { language: range.split('-')[0], weight: weight === undefined ? 1 : Number(weight) || 0 };
  });
  const best = (language: Language) =>
    Math.max(0, ...ranges.filter((range) => range.language === language).map(({ weight }) => weight));
  return best('zh') > best('en') ? 'zh' : 'en';
}
