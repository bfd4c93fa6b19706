import { globSync, readFileSync, statSync } from 'node:fs';
import { dirname, isAbsolute, resolve } from 'node:path';

/** A directive of nginx (nginx.org, *Configuration File's Structure*): `name args… ;` or `name args… { … }`. */
export interface Directive {
  readonly name: string;
  readonly args: readonly string[];
  /** Null for a simple directive. */
  readonly block: readonly Directive[] | null;
  readonly file: string;
  readonly line: number;
}

interface Token {
  /** A brace or semicolon that ends something, or a word; in quotes it is a word whatever it is. */
  readonly kind: 'word' | '{' | '}' | ';';
  readonly text: string;
  readonly line: number;
}

/** Includes within includes. */
const MAX_DEPTH = 16;
/** Of one file, bytes. */
const MAX_FILE = 4 * 1024 * 1024;
/** Files of one configuration. */
const MAX_FILES = 10_000;

/** Reads a configuration with what it includes. What is no syntax of nginx is noted, and the rest is read on. */
export class NginxFiles {
  /** What was not understood: a sentence each. */
  readonly problems: string[] = [];
  readonly #root: string;
  #files = 0;

  /** @param file the first; what it includes is relative to its folder */
  constructor(file: string) {
    this.#root = dirname(resolve(file));
  }

  /** @throws the system's error where it cannot be read */
  read(file: string, depth = 0): Directive[] {
    this.#files++;
    const about = statSync(file);
    // A device or a pipe may have no end.
    if (!about.isFile() || about.size > MAX_FILE) throw new Error('it is no file, or too large for a configuration');
    const tokens = tokenize(readFileSync(file, 'utf8'));
    const reader = { tokens, at: 0 };
    const found = this.#block(reader, file, depth, false);
    return found;
  }

  #block(reader: { tokens: readonly Token[]; at: number }, file: string, depth: number, within: boolean): Directive[] {
    const directives: Directive[] = [];
    let words: Token[] = [];
    for (; ; reader.at++) {
      const token = reader.tokens[reader.at];
      if (token === undefined) {
        if (within) this.#problem(file, reader.tokens.at(-1)?.line ?? 1, 'a block has no end');
        if (words[0] !== undefined) this.#problem(file, words[0].line, `"${words[0].text}" has no semicolon`);
        return directives;
      }
      const [first, ...rest] = words;
      if (token.kind === 'word') {
        words.push(token);
        continue;
      }
      if (token.kind === '}') {
        if (first !== undefined) this.#problem(file, first.line, `"${first.text}" has no semicolon`);
        if (within) return directives;
        this.#problem(file, token.line, 'a block ends that did not begin');
        words = [];
        continue;
      }
      if (first === undefined) {
        if (token.kind === '{') {
          this.#problem(file, token.line, 'a block has no name');
          reader.at++;
          this.#block(reader, file, depth, true);
        }
        continue;
      }
      const args = rest.map(({ text }) => text);
      words = [];
      let block: Directive[] | null = null;
      if (token.kind === '{') {
        reader.at++;
        block = this.#block(reader, file, depth, true);
      }
      if (first.text === 'include' && block === null)
        directives.push(...this.#include(args[0] ?? '', file, first.line, depth));
      else directives.push({ name: first.text.toLowerCase(), args, block, file, line: first.line });
    }
  }

  #include(pattern: string, file: string, line: number, depth: number): Directive[] {
    // Tables that every nginx has, and that name no registry.
    if (/(^|\/)(mime\.types|(fastcgi|uwsgi|scgi)_params|fastcgi\.conf)$/.test(pattern)) return [];
    const path = isAbsolute(pattern) ? pattern : resolve(this.#root, pattern);
    const hasStars = /[*?[]/.test(pattern);
    const files = hasStars ? globSync(path).sort() : [path];
    // A folder of sites may be empty.
    if (files.length === 0) return [];
    return files.flatMap((one) => {
      if (depth >= MAX_DEPTH || this.#files >= MAX_FILES) {
        this.#problem(file, line, `include ${pattern} leads in a circle`);
        return [];
      }
      try {
        return this.read(one, depth + 1);
      } catch (error) {
        this.#problem(file, line, `include ${pattern} cannot be read: ${(error as Error).message}`);
        return [];
      }
    });
  }

  #problem(file: string, line: number, what: string): void {
    this.problems.push(`${file}:${line}: ${what}`);
  }
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  let line = 1;
  let word: { text: string; line: number } | null = null;
  const end = (): void => {
    if (word !== null) tokens.push({ kind: 'word', ...word });
    word = null;
  };
  const add = (more: string): void => {
    word = word === null ? { text: more, line } : { text: word.text + more, line: word.line };
  };
  for (let at = 0; at < text.length; at++) {
    const char = text[at] as string;
    if (char === '\n') line++;
    if (/\s/.test(char)) end();
    else if (char === '#' && word === null) {
      while (at + 1 < text.length && text[at + 1] !== '\n') at++;
    } else if ((char === '"' || char === "'") && word === null) {
      add('');
      for (at++; at < text.length && text[at] !== char; at++) {
        if (text[at] === '\n') line++;
        if (text[at] === '\\' && at + 1 < text.length && [char, '\\'].includes(text[at + 1] as string)) at++;
        add(text[at] as string);
      }
      end();
    } else if (char === '\\' && at + 1 < text.length) {
      add(char + (text[++at] as string));
    } else if (char === '$' && text[at + 1] === '{') {
      // A variable in braces is a part of its word.
      const close = text.indexOf('}', at);
      add(close < 0 ? '$' : `$${text.slice(at + 2, close)}`);
      if (close >= 0) at = close;
    } else if (char === ';' || char === '{' || char === '}') {
      // A regular expression's {2,3} stands in quotes, as nginx wants it.
      end();
      tokens.push({ kind: char, text: char, line });
    } else add(char);
  }
  end();
  return tokens;
}
