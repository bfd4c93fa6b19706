import { isIP } from 'node:net';

/** What a client's configuration is written from. */
export interface ClientFacts {
  /** The gateway's own host name or address, without port. */
  readonly domain: string;
  /** How clients reach it; the port is null where it is the scheme's own. */
  readonly scheme: 'https' | 'http';
  readonly port: number | null;
  /** PEM of the internal CA's root, where clients must be told to trust it. */
  readonly ca: CaRoot | null;
  readonly registries: readonly string[];
  readonly aliases: readonly { readonly name: string; readonly host: string; readonly registry: string }[];
  /** Whether clients must log in. */
  readonly credentials: boolean;
}

/** `pem` is null until the gateway has started once: only then there is a root. */
export interface CaRoot {
  readonly pem: string | null;
  readonly file: string;
}

/** `cr.example.com`, `localhost:8443`, `[::1]:8443`: as image names and file names write it. */
export function authority(facts: ClientFacts, host: string = facts.domain): string {
  const name = isIP(host) === 6 ? `[${host}]` : host;
  return facts.port === null ? name : `${name}:${facts.port}`;
}

export function baseUrl(facts: ClientFacts, host: string = facts.domain): string {
  return `${facts.scheme}://${authority(facts, host)}`;
}

/** A registry's place below the bare domain (`cr.example.com/quay.io`); a port cannot stand in an image's path, so there its alias serves. */
export function mirrorLocation(facts: ClientFacts, registry: string): string | null {
  if (!registry.includes(':')) return `${authority(facts)}/${registry}`;
  const alias = facts.aliases.find((one) => one.registry === registry);
  return alias === undefined ? null : authority(facts, alias.host);
}

/** The root as a file of the client's machine, or what to do for it later. */
export function caFile(
  facts: ClientFacts,
  path: string,
): { files: { path: string; content: string }[]; notes: string[] } {
  if (facts.ca === null) return { files: [], notes: [] };
  if (facts.ca.pem === null) {
    return {
      files: [],
      notes: [`The gateway makes its root certificate at its first start: then copy ${facts.ca.file} to ${path}`],
    };
  }
  return { files: [{ path, content: facts.ca.pem }], notes: [] };
}
