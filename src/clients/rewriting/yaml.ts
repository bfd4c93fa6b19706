import type { Alias, Document, Node, Pair, Scalar, YAMLMap } from 'yaml';
import { yamlLibrary } from '../../kit/yaml-text.ts';
import { isRegistryHost } from '../../oci/names.ts';
import { placeOf, type RewriteFacts, type Rewriting, registryIn, rewriteReference } from '../rewrite.ts';
import { type RewrittenText, type Spot, spliced, spotOf } from './text.ts';

/** Keys beside `repository` that only the description of an image has (Helm's values). */
const IMAGE_KEYS: ReadonlySet<string> = new Set(['tag', 'digest', 'registry', 'pullPolicy', 'imagePullPolicy']);
/** What only a job or step of GitHub's and GitLab's pipelines has. */
const PIPELINE_KEYS = ['runs-on', 'uses', 'script', 'before_script', 'stages'] as const;
/** Kinds whose `image:` is somebody's data. */
const DATA_KINDS: ReadonlySet<string> = new Set(['ConfigMap', 'Secret']);

/**
 * YAML and JSON that name images: Kubernetes' objects of any kind, compose files, Helm's values, kustomizations, CI pipelines. The library says
 * where they are; the text is changed there and nowhere else. A template that is no YAML yet is read by its `image:` lines.
 */
export function rewriteYaml(text: string, facts: RewriteFacts): RewrittenText {
  const { parseAllDocuments } = yamlLibrary();
  const parsed = parseAllDocuments(text, { prettyErrors: false, uniqueKeys: false, logLevel: 'silent' });
  const documents = Array.isArray(parsed) ? (parsed as Document.Parsed[]) : [];
  const error = documents.flatMap((document) => document.errors)[0];
  if (error !== undefined) return rewriteLines(text, facts, error.message);
  return spliced(
    text,
    documents.flatMap((document) => new ImageFinder(text, document, facts).spots()),
  );
}

/** Finds the images of one document. */
class ImageFinder {
  readonly #text: string;
  readonly #document: Document.Parsed;
  readonly #facts: RewriteFacts;
  readonly #found: Spot[] = [];

  constructor(text: string, document: Document.Parsed, facts: RewriteFacts) {
    this.#text = text;
    this.#document = document;
    this.#facts = facts;
  }

  spots(): readonly Spot[] {
    const { isMap, isPair, visit } = yamlLibrary();
    const root: Node | null = this.#document.contents;
    const kustomization = isMap(root) && (root.get('kind') === 'Kustomization' || isListOfNames(root.get('images')));
    if (kustomization) this.#kustomization(root as YAMLMap);
    visit(this.#document, {
      Map: (_key, map, path) => {
        if (DATA_KINDS.has(String(map.get('kind')))) return visit.SKIP;
        const above = path.at(-1);
        const name = isPair(above) ? keyOf(above) : '';
        // Words about an object, which nothing is pulled by.
        if (/^(?:annotations|labels|matchLabels)$/.test(name)) return visit.SKIP;
        this.#map(map, name, kustomization && path.length <= 1);
        return undefined;
      },
    });
    return this.#found;
  }

  /** @param name the key under which the map stands */
  #map(map: YAMLMap, name: string, isKustomization: boolean): void {
    const keys = new Set(map.items.map((pair) => keyOf(pair)));
    const part = partKey(map, keys, name);
    if (part !== null) this.#repository(map, keys, part, part !== 'repository' || /image/i.test(name));
    if (PIPELINE_KEYS.some((key) => keys.has(key))) this.#pipeline(map);
    for (const pair of map.items) {
      const key = keyOf(pair);
      const scalar = this.#scalar(pair.value);
      if (scalar === null || typeof scalar.value !== 'string') continue;
      if (key === part) continue;
      if (key === 'image' && !isKustomization) {
        // An image that is built here is named after nothing that could be pulled (compose-spec, build).
        if (!keys.has('build')) this.#whole(scalar, scalar.value);
      } else if (key === 'reference' && name === 'image') this.#whole(scalar, scalar.value);
      else if (/^(?:imageRegistry|registry)$/.test(key) && part === null)
        this.#registry(scalar, scalar.value, scalar.value);
      else if (/image(?:Name|Ref)?$/i.test(key) || scalar.value.startsWith('docker-image://'))
        this.#explicit(scalar, scalar.value);
      else if (/^(?:value|default)$/.test(key) && /image/i.test(String(map.get('name'))))
        this.#explicit(scalar, scalar.value);
      else if (/_IMAGE$|^RELATED_IMAGE/.test(key)) this.#explicit(scalar, scalar.value);
    }
  }

  /** A job of GitHub's or GitLab's pipelines, which say some images by other keys. */
  #pipeline(map: YAMLMap): void {
    const { isSeq } = yamlLibrary();
    const services = map.get('services');
    const images = [map.get('container', true), map.get('uses', true), ...(isSeq(services) ? services.items : [])];
    for (const image of images) {
      const scalar = this.#scalar(image);
      if (typeof scalar?.value !== 'string') continue;
      // An action is a path in a repository, but for those that are images.
      if (image === map.get('uses', true) && !scalar.value.startsWith('docker://')) continue;
      this.#whole(scalar, scalar.value);
    }
  }

  /** Helm's form of an image, in two or three parts, of which `key` has the repository. */
  #repository(map: YAMLMap, keys: ReadonlySet<string>, key: PartKey, isImage: boolean): void {
    const repository = this.#scalar(map.get(key, true));
    if (repository === null || typeof repository.value !== 'string') return;
    const registry = this.#scalar(map.get('registry', true));
    const host = typeof registry?.value === 'string' ? registry.value : '';
    const [tag, digest] = ['tag', 'digest'].map((part) => this.#scalar(map.get(part, true))?.source ?? '');
    const version = digest === '' ? (tag === '' ? '' : `:${tag}`) : `@${digest}`;
    if (registry !== null && host !== '') {
      this.#registry(registry, host, `${host}/${repository.value}${version}`);
      return;
    }
    const whole = `${repository.value}${version}`;
    if (isImage || [...keys].some((one) => IMAGE_KEYS.has(one))) this.#whole(repository, repository.value, whole);
    else this.#explicit(repository, repository.value);
  }

  /** A registry that a chart puts before a repository. */
  #registry(scalar: Scalar, value: string, whole: string): void {
    const registry = registryIn(value, this.#facts);
    const place = registry === undefined ? null : placeOf(registry, this.#facts);
    // Not each `registry:` is one of images; what names this gateway is done.
    if (registry === undefined && !isRegistryHost(value)) return;
    const rewriting: Rewriting =
      registry === undefined || place === null
        ? rewriteReference(`${value}/name`, this.#facts)
        : { kind: 'rewritten', from: value, to: place.prefix, registry, by: place.by };
    this.#put(scalar, value, rewriting, whole);
  }

  /** What is an image for sure. */
  #whole(scalar: Scalar, value: string, whole?: string): void {
    if (value.trim() === '') return;
    this.#put(scalar, value, withPreset(value, this.#facts) ?? rewriteReference(value, this.#facts), whole);
  }

  /** What may be something else: it is an image where it names a registry of the gateway. */
  #explicit(scalar: Scalar, value: string): void {
    const rewriting = rewriteReference(value, this.#facts);
    const first = value.replace(/^[a-z-]+:\/\//, '').split('/')[0] ?? '';
    if (rewriting.kind === 'rewritten' && isRegistryHost(first) && value.includes('/'))
      this.#put(scalar, value, rewriting);
  }

  /** `images:` of a kustomization: what is named stays, since it is looked for; what it becomes is `newName`. */
  #kustomization(root: YAMLMap): void {
    const { isMap, isSeq } = yamlLibrary();
    const images = root.get('images');
    for (const item of isSeq(images) ? images.items : []) {
      if (!isMap(item)) continue;
      const [name, newName] = [this.#scalar(item.get('name', true)), this.#scalar(item.get('newName', true))];
      if (typeof newName?.value === 'string') this.#whole(newName, newName.value);
      else if (typeof name?.value === 'string') this.#newName(item, name, name.value);
    }
  }

  #newName(item: YAMLMap, name: Scalar, value: string): void {
    const rewriting = rewriteReference(value, this.#facts);
    const [start, end] = rangeOf(name);
    const keyStart = rangeOf(item.items.find((pair) => keyOf(pair) === 'name')?.key as Scalar)[0];
    const column = keyStart - (this.#text.lastIndexOf('\n', keyStart - 1) + 1);
    const lineEnd = this.#text.startsWith('\r\n', this.#text.indexOf('\n') - 1) ? '\r\n' : '\n';
    const to = rewriting.kind === 'rewritten' ? rewriting.to : '';
    const text = item.flow === true ? `, newName: ${to}` : `${lineEnd}${' '.repeat(column)}newName: ${to}`;
    // Behind a comment on the same line there is no room.
    const at = item.flow === true ? end : lineEndAfter(this.#text, end);
    this.#found.push({ start: rewriting.kind === 'kept' ? start : at, end: at, text, rewriting });
  }

  /** The text of a scalar, in the quotes that it has. */
  #put(scalar: Scalar, value: string, rewriting: Rewriting, whole?: string): void {
    const [start, end] = rangeOf(scalar);
    const source = this.#text.slice(start, end);
    const offset = source.indexOf(value);
    if (offset < 0) {
      const message = `${value} is written in a form that cannot be changed in place`;
      this.#found.push(spotOf(start, source, { kind: 'kept', from: value, why: 'malformed', message }));
      return;
    }
    const spot = { ...spotOf(start + offset, value, rewriting), ...(whole === undefined ? {} : { whole }) };
    // A bracket would begin a list.
    const bare = offset === 0 && scalar.type === 'PLAIN' && /^[[{]/.test(spot.text);
    this.#found.push(bare ? { ...spot, text: `"${spot.text}"` } : spot);
  }

  /** A scalar, or the one that an alias stands for. */
  #scalar(node: unknown): Scalar | null {
    const { isAlias, isScalar } = yamlLibrary();
    const found = isAlias(node) ? (node as Alias).resolve(this.#document) : node;
    return isScalar(found) ? found : null;
  }
}

type PartKey = 'repository' | 'image' | 'name';

/** The key of an image's repository in a map that may have its registry, tag and digest beside it; null where none has. */
function partKey(map: YAMLMap, keys: ReadonlySet<string>, name: string): PartKey | null {
  if (keys.has('repository')) return 'repository';
  // ingress-nginx and others: `registry:` before `image:`.
  if (keys.has('image') && keys.has('registry')) return 'image';
  // Below `image:` GitLab and some charts call it a name; OpenShift's image streams and builds do by their kind.
  return keys.has('name') && (/image$/i.test(name) || map.get('kind') === 'DockerImage') ? 'name' : null;
}

/** What a variable is where nothing is set, as Compose puts it in: a whole reference, all of it but the version, or its registry. */
const PRESET = /^(\$\{\w+:?-)([^${}]+)(\}(.*))$/s;

/** A reference that begins with a variable that has a default: that is changed. Null for any other. */
function withPreset(value: string, facts: RewriteFacts): Rewriting | null {
  const [, before = '', preset = '', after = '', rest = ''] = PRESET.exec(value) ?? [];
  if (preset === '') return null;
  const registry = rest.startsWith('/') ? registryIn(preset, facts) : undefined;
  const place = registry === undefined ? null : placeOf(registry, facts);
  if (registry !== undefined && place !== null)
    return { kind: 'rewritten', from: value, to: `${before}${place.prefix}${after}`, registry, by: place.by };
  if (rest !== '' && !/^[:@]/.test(rest)) return null;
  const rewriting = rewriteReference(preset, facts);
  return rewriting.kind === 'kept' ? rewriting : { ...rewriting, from: value, to: `${before}${rewriting.to}${after}` };
}

function keyOf(pair: Pair): string {
  return String((pair.key as Partial<Scalar> | null)?.value ?? pair.key ?? '');
}

function rangeOf(node: Node | null | undefined): readonly [number, number] {
  const range = node?.range;
  return [range?.[0] ?? 0, range?.[1] ?? 0];
}

function lineEndAfter(text: string, from: number): number {
  const end = /\r?\n/.exec(text.slice(from));
  return end === null ? text.length : from + end.index;
}

function isListOfNames(value: unknown): boolean {
  const { isMap, isSeq } = yamlLibrary();
  const items = isSeq(value) ? value.items : [];
  return items.length > 0 && items.every((item) => isMap(item) && item.has('name') && !item.has('image'));
}

/** `image: …` on a line of its own; templates have it so. */
const IMAGE_LINE =
  /^([ \t]*(?:-[ \t]+)?["']?image["']?:[ \t]+)(["']?)([^\s"'#](?:[^"'\n#]*[^\s"'#])?)\2[ \t]*(?:#.*)?\r?$/gm;

function rewriteLines(text: string, facts: RewriteFacts, problem: string): RewrittenText {
  const spots = [...text.matchAll(IMAGE_LINE)].map((match) => {
    const [, before = '', quote = '', reference = ''] = match;
    return spotOf(match.index + before.length + quote.length, reference, rewriteReference(reference, facts));
  });
  return spliced(text, spots, [`it is no YAML (${problem}): only its lines with image: were read`]);
}
