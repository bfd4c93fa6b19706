import { isGlobalAddress, parseAddress } from '../kit/networks.ts';
import type { AliasEntry, RegistryEntry } from './table.ts';

/**
 * Names that the public DNS does not have: set aside for private use or for examples (RFC 2606, RFC 6761, RFC 6762 and its appendix G, RFC 8375,
 * ICANN's `.internal`).
 */
const PRIVATE_NAMES =
  /(?:^|\.)(?:localhost|localdomain|local|internal|intranet|private|corp|home|lan|home\.arpa|test|example|invalid)$/;

/**
 * Whether a host, with or without a port, can be reached on some private network alone: an address that is not globally reachable, a name of one part,
 * or one that the public DNS cannot have. A name that looks public and is not cannot be told from others.
 */
export function isInternalHost(text: string): boolean {
  const host = text
    .toLowerCase()
    .replace(/:\d+$/, '')
    .replace(/^\[|\]$/g, '');
  const address = parseAddress(host);
  if (address !== null) return !isGlobalAddress(address);
  return !host.includes('.') || PRIVATE_NAMES.test(host);
}

/**
 * Whether a registry is its operator's own business, so that strangers are not told of it: its name is of a private network, or strangers get nothing
 * of it, since only the operator's credentials open it and it is not `--public`. Its endpoints are told to nobody, and do not matter here.
 */
export function isUnlisted({ host, credentials, public: isPublic }: RegistryEntry): boolean {
  return isInternalHost(host) || (credentials !== null && !isPublic);
}

/** Whether an alias is a full host name of a private network; a label's host is the gateway's own. */
export function isInternalAlias({ name }: Pick<AliasEntry, 'name'>): boolean {
  return name.includes('.') && isInternalHost(name);
}
