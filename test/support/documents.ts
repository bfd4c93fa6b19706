import { readFileSync } from 'node:fs';

/** A document of the checkout. */
export const readDocument = (name: string): string =>
  readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8').replaceAll('\r\n', '\n');

export interface Block {
  /** What stands behind the fence: `sh`, `toml`, `mermaid`, or nothing. */
  readonly language: string;
  readonly lines: readonly string[];
}

/** The fenced blocks, in their order. */
export function blocksOf(text: string): Block[] {
  return [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language = '', body = '']) => ({
    language,
    lines: body.trimEnd().split('\n'),
  }));
}

/** The lines of the shell in its `sh` blocks, as they stand there, each with the number of its block. */
export function shellLines(text: string): { readonly block: number; readonly line: string }[] {
  return blocksOf(text)
    .filter(({ language }) => language === 'sh')
    .flatMap(({ lines }, block) => lines.map((line) => ({ block, line })));
}

/** What stands in code within the sentences and tables. */
export function codeSpans(text: string): string[] {
  const sentences = text.replace(/^```\w*\n[\s\S]*?^```$/gm, '');
  return [...sentences.matchAll(/`([^`\n]+)`/g)].map(([, span = '']) => span.replaceAll('\\|', '|'));
}

/** A line without its comment. */
export const withoutComment = (line: string): string => line.replace(/(^|\s+)#.*$/, '');

/**
 * The words of every `gateway …` that a line of the shell runs, without `gateway` itself. A word of several choices, `docker·podman`, stands for
 * as many command lines.
 */
export function gatewayCommands(line: string): string[][] {
  const parts = withoutComment(line).split(/\s*(?:\|\||&&|[|;&]|\$\(|<\(|\)|>)\s*/);
  return parts.flatMap((part) => {
    const words = (part.match(/(?:[^\s'"]|'[^']*'|"[^"]*")+/g) ?? []).map((word) => word.replaceAll(/['"]/g, ''));
    const program = words.findIndex((word) => /^(\S*\/)?gateway$/.test(word));
    // Before it may stand variables and `sudo -u NAME`; anything else takes the word for an operand of its own.
    const before = words.slice(0, program).join(' ');
    if (program === -1 || !/^([A-Z_]+=\S* ?)*(sudo -u \S+)?$/.test(before)) return [];
    return words
      .slice(program + 1)
      .reduce<string[][]>((all, word) => word.split('·').flatMap((one) => all.map((line) => [...line, one])), [[]]);
  });
}
