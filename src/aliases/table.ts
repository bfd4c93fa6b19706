import type { HasCredentials } from '../oci/credentials.ts';

/** A registry of the table: a host that image names start with, and where its content is fetched. */
export interface RegistryEntry extends HasCredentials {
  /** `docker.io`, `localhost:5000`; in the table also a pattern, `*.pkg.dev`: each host that matches is a registry of its own (`registryOf`). */
  readonly host: string;
  /** Of a registry that has no row of its own: the pattern whose row it is. */
  readonly pattern?: string;
  /** URLs, tried in order; never empty (default: `https://<host>`, for docker.io `https://registry-1.docker.io`). */
  readonly endpoints: readonly string[];
  readonly proxy: string | null;
  /** What the credentials open is served to anonymous clients too. */
  readonly public: boolean;
  /** Hosts outside its own domain that may be sent its credentials: `auth.example.com`, or with a port that must match. */
  readonly realms: readonly string[];
  /** PEM of authorities that its certificates may be signed by, besides those that this machine trusts; null for none. */
  readonly ca: string | null;
}

/** An alias: a DNS label under the domain, or a full host name, that stands for one registry. */
export interface AliasEntry {
  /** As typed, normalised: `k8s-gcr` or `hub.corp.example`. */
  readonly name: string;
  /** The host that clients connect to: `k8s-gcr.cr.example.com`. */
  readonly host: string;
  readonly registry: string;
  /** False after `--no-cert`: none is ordered until `cert renew`. */
  readonly certificate: boolean;
}

/** The whole table, immutable; swapped whole, so that a reader never sees half a change. */
export interface TableSnapshot {
  readonly domain: string;
  /** The host of `publicUrl`, by which clients know the gateway where it is not the domain. */
  readonly publicHost?: string | undefined;
  readonly registries: ReadonlyMap<string, RegistryEntry>;
  /** By name. */
  readonly aliases: ReadonlyMap<string, AliasEntry>;
  /** By host, lower-case, without port. */
  readonly hosts: ReadonlyMap<string, AliasEntry>;
}
