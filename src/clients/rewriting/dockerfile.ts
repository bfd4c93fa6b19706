import { placeOf, type RewriteFacts, type Rewriting, registryIn, rewriteReference } from '../rewrite.ts';
import { type RewrittenText, type Spot, spliced, spotOf } from './text.ts';

/** An instruction with its continuation lines, and where it begins. */
interface Instruction {
  readonly start: number;
  readonly text: string;
}

/** `ARG NAME=default` before the first FROM. */
interface Argument {
  readonly value: string;
  readonly start: number;
}

const VARIABLE = /^\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))/;
const WITH_DEFAULT = /^\$\{[A-Za-z_]\w*:-([^}]*)\}$/;

/**
 * A Dockerfile or Containerfile (Docker's Dockerfile reference): `FROM`, `COPY --from`, `RUN --mount=…,from=`, `# syntax=`, and the defaults of `ARG`s
 * that a `FROM` is made of. Names of stages are no images.
 */
export function rewriteDockerfile(text: string, facts: RewriteFacts): RewrittenText {
  const spots: Spot[] = [];
  const stages = new Set<string>();
  const args = new Map<string, Argument>();
  const put = (start: number, reference: string) =>
    spots.push(spotOf(start, reference, rewriteReference(reference, facts)));

  const syntax = /^(?:\uFEFF)?(?:#[ \t]*\w+[ \t]*=.*\r?\n)*?#[ \t]*syntax[ \t]*=[ \t]*(\S+)/i.exec(text);
  if (syntax?.[1] !== undefined) put(syntax[0].length - syntax[1].length, syntax[1]);

  for (const { start, text: line } of instructionsOf(text)) {
    const word = /^[ \t]*(?:ONBUILD\s+)?([A-Za-z]+)/i.exec(line)?.[1]?.toUpperCase();
    if (word === 'ARG' && stages.size === 0) {
      for (const match of line.matchAll(/[\s]([A-Za-z_]\w*)=(["']?)([^\s"']*)\2/g)) {
        const [whole, name = '', quote = '', value = ''] = match;
        args.set(name, { value, start: start + match.index + whole.length - quote.length - value.length });
      }
    } else if (word === 'FROM') {
      const from = /^[ \t]*FROM(?:[\s\\]+--\S+)*[\s\\]+(["']?)([^\s"']+)\1(?:[\s\\]+AS[\s\\]+(\S+))?/i.exec(line);
      if (from === null) continue;
      const [, , reference = '', stage] = from;
      const at = start + line.indexOf(reference, line.search(/FROM/i) + 4 + optionsLength(line));
      if (reference.toLowerCase() !== 'scratch' && !stages.has(reference.toLowerCase()))
        spots.push(...ofFrom(at, reference, args, facts));
      // A stage without a name counts too: the ARGs after it are its own.
      stages.add((stage ?? ` ${stages.size}`).toLowerCase());
    } else if (word === 'COPY' || word === 'ADD' || word === 'RUN') {
      const from = word === 'RUN' ? /--mount=\S*?\bfrom=([^\s,]+)/g : /\s--from=(["']?)([^\s"']+)\1/g;
      for (const match of line.matchAll(from)) {
        const reference = match[2] ?? match[1] ?? '';
        if (stages.has(reference.toLowerCase()) || /^\d+$/.test(reference)) continue;
        put(start + match.index + match[0].lastIndexOf(reference), reference);
      }
    }
  }
  return spliced(text, spots);
}

/** Of `--platform=…` and what else may stand between FROM and its image. */
function optionsLength(line: string): number {
  return /FROM((?:[\s\\]+--\S+)*)/i.exec(line)?.[1]?.length ?? 0;
}

/** What a FROM names: an image, or one that is made of ARGs, whose defaults are changed then. */
function ofFrom(start: number, reference: string, args: ReadonlyMap<string, Argument>, facts: RewriteFacts): Spot[] {
  const inline = WITH_DEFAULT.exec(reference)?.[1];
  if (inline !== undefined)
    return [spotOf(start + reference.indexOf(':-') + 2, inline, rewriteReference(inline, facts))];
  const variable = VARIABLE.exec(reference);
  const argument = args.get(variable?.[1] ?? variable?.[2] ?? '');
  if (variable === null || argument === undefined || argument.value === '')
    return [spotOf(start, reference, rewriteReference(reference, facts))];
  const rest = reference.slice(variable[0].length);
  // The whole name, or all of it but tag and digest.
  if (rest === '' || /^[:@]/.test(rest))
    return [
      {
        ...spotOf(argument.start, argument.value, rewriteReference(argument.value, facts)),
        whole: argument.value + rest,
      },
    ];
  const registry = rest.startsWith('/') ? registryIn(argument.value, facts) : undefined;
  const place = registry === undefined ? null : placeOf(registry, facts);
  if (registry === undefined || place === null) {
    const known = rewriteReference(argument.value + rest, facts);
    const rewriting: Rewriting = known.kind === 'kept' ? known : rewriteReference(reference, facts);
    return [spotOf(start, reference, rewriting)];
  }
  const changed: Rewriting = { kind: 'rewritten', from: argument.value, to: place.prefix, registry, by: place.by };
  return [{ ...spotOf(argument.start, argument.value, changed), whole: argument.value + rest }];
}

/** The instructions of a file, without comments and without the lines of here-documents. */
function instructionsOf(text: string): Instruction[] {
  const continuation = /^(?:\uFEFF)?(?:#.*\r?\n)*?#[ \t]*escape[ \t]*=[ \t]*`/i.test(text) ? '`' : '\\';
  const instructions: Instruction[] = [];
  const lines = text.split('\n');
  let offset = 0;
  let open: { start: number; text: string } | null = null;
  let ends: string[] = [];
  for (const line of lines) {
    const start = offset;
    offset += line.length + 1;
    const bare = line.replace(/\r$/, '');
    if (ends.length > 0) {
      if (bare.replace(/^\t+/, '') === ends[0]) ends.shift();
      continue;
    }
    const isComment = /^[ \t]*(?:#|$)/.test(bare.replace(/^\uFEFF/, ''));
    // A comment between the lines of an instruction is none of it; its place is kept for the offsets.
    if (isComment && open === null) continue;
    open ??= { start, text: '' };
    open.text += isComment ? `${' '.repeat(line.length)}\n` : `${line}\n`;
    if (isComment || bare.trimEnd().endsWith(continuation)) continue;
    ends = [...open.text.matchAll(/<<-?(["']?)([A-Za-z_]\w*)\1/g)].map((match) => match[2] ?? '');
    if (!/^[ \t]*(?:ONBUILD\s+)?(?:RUN|COPY|ADD)\b/i.test(open.text)) ends = [];
    instructions.push({ start: open.start, text: open.text.replace(/^\uFEFF/, ' ') });
    open = null;
  }
  if (open !== null) instructions.push(open);
  return instructions;
}
