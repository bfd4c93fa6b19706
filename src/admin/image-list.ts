import { type RewriteFacts, rewriteReference, upstreamReference } from '../clients/rewrite.ts';
import { rewriteDockerfile } from '../clients/rewriting/dockerfile.ts';
import { rewriteYaml } from '../clients/rewriting/yaml.ts';
import { type ImageName, parseImageName } from '../images/image-name.ts';
import { OperatorError } from '../kit/operator-error.ts';

/** What names images: an operand of a command, or a file. */
export interface ImageText {
  /** As it is called in messages: the file's name. Null for an operand, which is one reference. */
  readonly file: string | null;
  readonly text: string;
}

/** Something that names an image which cannot be known. */
export interface UnreadImage {
  readonly reference: string;
  /** `deployment.yaml:12`; null for an operand. */
  readonly where: string | null;
  /** One sentence, without its full stop. */
  readonly why: string;
}

/** The images that operands and files name, as they are called upstream. */
export interface ImageList {
  /** Each once, in the order in which they were named first. */
  readonly images: readonly ImageName[];
  readonly unread: readonly UnreadImage[];
  /** What whoever gave the files should know of them. */
  readonly notes: readonly string[];
}

interface Mention {
  readonly reference: string;
  readonly where: string | null;
}

/** Text before a comment, which begins a line or stands behind a space. */
const COMMENT = /(?:^|\s)#.*$/;
/** What a line of a plain list is, its comment taken away: one word that can begin a name, or a variable. Nothing in YAML is written so alone. */
const LISTED = /^[A-Za-z0-9$<%{][^\s]*$/;
const JSON_OR_KEY = /^\{(?!\{)|:$/;
/** `${TAG:-1.2}`, as Compose and shells put it in where nothing is set. */
const PRESET = /\$\{\w+:?-([^${}]*)\}/g;

/**
 * Reads the images that operands and files name. Files are plain lists (a reference a line, `#` begins a comment), Dockerfiles, or YAML and JSON that name
 * images: Kubernetes' objects of any kind, several documents, compose files, Helm's values. Names that go through this gateway are those of their registries;
 * variables without a value are told, never guessed.
 */
export function readImageList(texts: readonly ImageText[], facts: RewriteFacts): ImageList {
  const images = new Map<string, ImageName>();
  const unread: UnreadImage[] = [];
  const notes: string[] = [];
  for (const { file, text } of texts) {
    const { mentions, said } = file === null ? operand(text) : mentionsIn(file, text, facts);
    notes.push(...said);
    for (const { reference, where } of mentions) {
      const image = readImage(reference, facts);
      if (image === null) continue;
      if (typeof image === 'string') unread.push({ reference, where, why: image });
      else images.set(image.text, image);
    }
  }
  return { images: [...images.values()], unread, notes };
}

function operand(text: string): { mentions: Mention[]; said: string[] } {
  return { mentions: [{ reference: text, where: null }], said: [] };
}

/** The image; a sentence where it cannot be known; null for `scratch`, which nobody pulls. */
function readImage(written: string, facts: RewriteFacts): ImageName | string | null {
  const reference = written.replace(PRESET, '$1');
  const rewriting = rewriteReference(reference, facts);
  if (rewriting.kind === 'kept') {
    if (rewriting.why === 'scratch') return null;
    if (rewriting.why === 'image-id' || rewriting.why === 'variable') return rewriting.message;
  }
  if (/[$%<>]|\{\{/.test(reference)) return `${reference} has variables without a value; what it names is not known`;
  try {
    return parseImageName(upstreamReference(reference, facts) ?? reference);
  } catch (error) {
    if (error instanceof OperatorError) return error.message;
    throw error;
  }
}

function mentionsIn(file: string, text: string, facts: RewriteFacts): { mentions: Mention[]; said: string[] } {
  const listed = plainList(text);
  if (listed !== null)
    return { mentions: listed.map(({ word, line }) => ({ reference: word, where: `${file}:${line}` })), said: [] };
  const { found, notes } = isDockerfile(file, text) ? rewriteDockerfile(text, facts) : rewriteYaml(text, facts);
  const mentions = found.map(({ line, rewriting, whole }) => ({
    reference: whole ?? rewriting.from,
    where: `${file}:${line}`,
  }));
  const none = mentions.length === 0 ? [`${file}: no image is named in it`] : [];
  return { mentions, said: [...notes.map((note) => `${file}: ${note}`), ...none] };
}

/** The words of a plain list with their lines, from 1; null for a file that is none. */
function plainList(text: string): { word: string; line: number }[] | null {
  const lines = text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .map((line, at) => ({ word: line.replace(COMMENT, '').trim(), line: at + 1 }))
    .filter(({ word }) => word !== '');
  return lines.length > 0 && lines.every(({ word }) => LISTED.test(word) && !JSON_OR_KEY.test(word)) ? lines : null;
}

function isDockerfile(file: string, text: string): boolean {
  if (/\.(?:ya?ml|json)$/i.test(file)) return false;
  if (/(?:^|[./])(?:dockerfile|containerfile)(?:\.|$)/i.test(file)) return true;
  return /^(?:\uFEFF)?(?:\s*#.*\n|\s*\n)*[ \t]*(?:FROM|ARG)[ \t]/i.test(text);
}
