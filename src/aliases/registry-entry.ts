import { defaultEndpoints, parseCredentials, parseEndpoints, parseRegistryProxy } from './names.ts';
import type { RegistryEntry } from './table.ts';

/** What is left out stays as it is; null takes it away. */
export interface RegistrySettings {
  readonly endpoints?: readonly string[] | undefined;
  readonly proxy?: string | null | undefined;
  readonly credentials?: { readonly username: string; readonly password: string } | null | undefined;
  readonly public?: boolean | undefined;
}

export function newRegistry(host: string): RegistryEntry {
  return { host, endpoints: defaultEndpoints(host), proxy: null, credentials: null, public: false };
}

export function applySettings(entry: RegistryEntry, settings: RegistrySettings): RegistryEntry {
  const { endpoints, proxy, credentials, public: open } = settings;
  return {
    host: entry.host,
    endpoints: endpoints === undefined || endpoints.length === 0 ? entry.endpoints : parseEndpoints(endpoints),
    proxy: proxy === undefined ? entry.proxy : proxy === null ? null : parseRegistryProxy(proxy),
    credentials:
      credentials === undefined ? entry.credentials : credentials === null ? null : parseCredentials(credentials),
    public: open ?? entry.public,
  };
}

export function sameList(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((item, index) => item === other[index]);
}

export function sameRegistry(one: RegistryEntry, other: RegistryEntry | undefined): boolean {
  return (
    other !== undefined &&
    sameList(one.endpoints, other.endpoints) &&
    one.proxy === other.proxy &&
    one.public === other.public &&
    one.credentials?.username === other.credentials?.username &&
    one.credentials?.password === other.credentials?.password
  );
}

export function withoutPassword(proxy: string): string {
  const url = new URL(proxy);
  if (url.password === '') return proxy;
  url.password = '';
  return url.href.replace(/\/$/, '');
}
