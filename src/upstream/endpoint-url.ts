/** What the registry API begins with (distribution-spec, *Endpoints*). */
const API = '/v2/';

/**
 * The part of an endpoint's path that is a project: what the repositories of the registry are below there. Harbor's proxy projects
 * (`https://harbor.example/v2/proxy-hub`), ECR's pull-through prefixes and GitLab's dependency proxy are such. Null where there is none: any other
 * path goes before `/v2/` (Artifactory's and Nexus's repositories).
 */
export function projectOf(endpoint: URL): string | null {
  const project = endpoint.pathname.replace(/\/+$/, '');
  return project.startsWith(API) ? project.slice(API.length) : null;
}

/** The URL of a path of the registry API (`/v2/library/alpine/tags/list?n=5`) at an endpoint. */
export function urlAt(endpoint: URL, path: string): URL {
  const project = projectOf(endpoint);
  if (project === null) return new URL(endpoint.href.replace(/\/+$/, '') + path);
  return new URL(path === API ? path : `${API}${project}/${path.slice(API.length)}`, endpoint);
}

/** What an endpoint calls a repository of the registry, as in the scope of a token. */
export function repositoryAt(endpoint: URL, repository: string): string {
  const project = projectOf(endpoint);
  return project === null ? repository : `${project}/${repository}`;
}
