import { OperatorError } from '../kit/operator-error.ts';
import { canonicalRegistry, DOCKER_HUB, hasMixedCase } from '../oci/known-registries.ts';
import {
  isRegistryHost,
  isRepositoryName,
  isTag,
  parseDigest,
  type Reference,
  type RepositoryKey,
} from '../oci/names.ts';

/** An image as people write it, read once. */
export interface ImageName extends RepositoryKey {
  /** What it is fetched by: the digest where there is one. */
  readonly reference: Reference;
  /** The tag that was written; beside a digest it is only a name. Null where none was. */
  readonly tag: string | null;
  /** The whole name, unambiguous: `docker.io/library/alpine:3.20`. */
  readonly text: string;
}

/** A name with nothing behind it means this tag (distribution/reference, *TagNameOnly*). */
const DEFAULT_TAG = 'latest';

/**
 * Reads an image's name by Docker's rules (distribution/reference, *ParseNormalizedNamed*): `alpine` is `docker.io/library/alpine:latest`.
 * @throws {OperatorError} `IMAGE_INVALID`
 */
export function parseImageName(written: string): ImageName {
  const invalid = (why: string) => new OperatorError('IMAGE_INVALID', `"${written.slice(0, 200)}" ${why}`);
  const text = written.replace(/^(?:docker|oci|docker-image):\/\//, '');
  const [name = '', digestText, ...more] = text.split('@');
  const digest = digestText === undefined ? undefined : parseDigest(digestText);
  if (digest === null || more.length > 0) throw invalid('has something behind @ that is no digest');
  const colon = name.indexOf(':', name.lastIndexOf('/') + 1);
  const path = colon < 0 ? name : name.slice(0, colon);
  const tag = colon < 0 ? null : name.slice(colon + 1);
  if (tag !== null && !isTag(tag)) throw invalid('has a tag that cannot exist');
  const { registry, repository } = splitName(path);
  if (!isRepositoryName(hasMixedCase(registry) ? repository.toLowerCase() : repository))
    throw invalid('is no image name');
  const named = tag ?? (digest === undefined ? DEFAULT_TAG : null);
  const reference: Reference =
    digest === undefined ? { kind: 'tag', tag: named ?? DEFAULT_TAG } : { kind: 'digest', digest };
  const version = `${named === null ? '' : `:${named}`}${digest === undefined ? '' : `@${digest}`}`;
  return { registry, repository, reference, tag: named, text: `${registry}/${repository}${version}` };
}

/**
 * Reads a name without a version, of a repository.
 * @throws {OperatorError} `IMAGE_INVALID`
 */
export function parseRepositoryName(written: string): RepositoryKey {
  const { registry, repository, text } = parseImageName(written);
  if (text !== `${registry}/${repository}:${DEFAULT_TAG}` || written.endsWith(`:${DEFAULT_TAG}`))
    throw new OperatorError(
      'IMAGE_INVALID',
      `"${written.slice(0, 200)}" names one image, and a repository is meant here`,
    );
  return { registry, repository };
}

function splitName(path: string): RepositoryKey {
  const slash = path.indexOf('/');
  const first = slash < 0 ? '' : path.slice(0, slash);
  const hasRegistry = slash >= 0 && isRegistryHost(first);
  const registry = hasRegistry ? canonicalRegistry(first.toLowerCase()) : DOCKER_HUB;
  const rest = hasRegistry ? path.slice(slash + 1) : path;
  return { registry, repository: registry === DOCKER_HUB && !rest.includes('/') ? `library/${rest}` : rest };
}
