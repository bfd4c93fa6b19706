// What is known of registries of the internet that their own API does not tell.

/** Docker Hub, as image names have it. */
export const DOCKER_HUB = 'docker.io';

/**
 * The other names of Docker Hub's registry: the host that serves it, those of its earlier versions (distribution/reference, *legacyDefaultDomain*), and
 * the service that its tokens are for.
 */
const DOCKER_HUB_NAMES: ReadonlySet<string> = new Set([
  'index.docker.io',
  'registry-1.docker.io',
  'registry.docker.io',
  'registry.hub.docker.com',
]);

/** Every name of Docker Hub in image names, the one that the table has first. */
export function dockerHubNames(): string[] {
  return [DOCKER_HUB, ...DOCKER_HUB_NAMES];
}

/** Its web site, whose addresses people copy; its paths (`/r/org/app`, `/_/alpine`) name no repositories, so that it is none of the names. */
export function isDockerHubSite(host: string): boolean {
  return host === 'hub.docker.com';
}

/** The one name of a registry that has several; the port of HTTPS is part of none of Docker Hub's. */
export function canonicalRegistry(host: string): string {
  const name = host.endsWith(':443') ? host.slice(0, -':443'.length) : host;
  return name === DOCKER_HUB || DOCKER_HUB_NAMES.has(name) ? DOCKER_HUB : host;
}

/** Registries whose repositories are called as their users like (Hugging Face: `bartowski/Llama-3.2-1B-Instruct-GGUF`). */
const MIXED_CASE: ReadonlySet<string> = new Set(['hf.co', 'huggingface.co']);

/** Whether a registry has capitals in the names of repositories, which the distribution-spec does not allow. */
export function hasMixedCase(registry: string): boolean {
  return MIXED_CASE.has(registry);
}

/** Registries that were shut down, and when. What is kept of them is served; nothing new comes. */
const SHUT_DOWN: Readonly<Record<string, string>> = { 'registry.jujucharms.com': '2022' };

/** The year in which the registry at this host was shut down; null for one that is alive. */
export function shutDownIn(host: string): string | null {
  return SHUT_DOWN[host] ?? null;
}

/**
 * What to try where a registry does not have an image that many still name; null where nothing is known. Bitnami took most of the tags out of
 * docker.io/bitnami in 2025, and repositories whole: they went to docker.io/bitnamilegacy as they were, without updates, and newer ones to its paying customers.
 */
export function movedTo(registry: string, repository: string): string | null {
  if (registry !== DOCKER_HUB || !repository.startsWith('bitnami/')) return null;
  const legacy = `bitnamilegacy/${repository.slice('bitnami/'.length)}`;
  return `check the name and the tag; Bitnami has moved most of its images: older ones may be at ${DOCKER_HUB}/${legacy}, without updates, and newer ones may need a subscription`;
}
