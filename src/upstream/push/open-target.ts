import { parseAddress } from '../../kit/networks.ts';
import type { Credentials } from '../../oci/credentials.ts';
import { DOCKER_HUB } from '../../oci/known-registries.ts';
import { bareHost } from '../net/egress.ts';
import { RegistryCheck } from '../registry-check.ts';
import { RegistryTarget, type RegistryTargetOptions } from './registry-target.ts';

/** Where Docker Hub takes pushes. */
const DOCKER_HUB_ENDPOINT = 'https://registry-1.docker.io';

export interface TargetRequest {
  /** As image names have it: `docker.io`, `localhost:5000`. */
  readonly registry: string;
  readonly credentials: Credentials | null;
  /** Hosts outside its own domain that may be sent the credentials. */
  readonly realms: readonly string[];
  /** PEM of authorities that sign for it, besides those that this machine trusts; null for none. */
  readonly ca: string | null;
  /** HTTP without TLS, as the operator says. */
  readonly plainHttp: boolean;
}

/**
 * The registry of a name, to be pushed to. One on this machine may speak HTTP without TLS, as Docker takes it: that is tried where it speaks no TLS. For
 * any other one the operator must say so.
 * @throws {OperatorError} where no registry answers there, or it lets nobody in with these credentials
 */
export async function openTarget(
  { registry, plainHttp, ...request }: TargetRequest,
  options: RegistryTargetOptions,
  signal: AbortSignal,
): Promise<RegistryTarget> {
  const secure = new URL(registry === DOCKER_HUB ? DOCKER_HUB_ENDPOINT : `https://${registry}`);
  const plain = new URL(`http://${registry}`);
  const isPlain = plainHttp || (isLoopback(secure) && (await speaksPlainHttp(secure, options, signal)));
  const endpoint = isPlain ? plain : secure;
  if (isPlain && !plainHttp) options.tell(`${registry} speaks no TLS: it is on this machine, so HTTP will do`);
  const target = new RegistryTarget({ host: registry, proxy: null, endpoint, ...request }, options);
  try {
    await target.reach(signal);
    return target;
  } catch (error) {
    await target.close();
    throw error;
  }
}

/** Whether a host is this machine by its name or address (RFC 6761 §6.3). */
export function isLoopback({ hostname }: URL): boolean {
  const host = bareHost(hostname);
  const address = parseAddress(host);
  if (address === null) return host === 'localhost' || host.endsWith('.localhost');
  return address.range() === 'loopback';
}

async function speaksPlainHttp(
  endpoint: URL,
  { config, pseudonym, environment }: RegistryTargetOptions,
  signal: AbortSignal,
): Promise<boolean> {
  const check = new RegistryCheck(config, pseudonym, { environment });
  try {
    const host = endpoint.host;
    const route = { host, endpoints: [endpoint.href], proxy: null, credentials: null, named: [], realms: [], ca: null };
    return (await check.ask(route, endpoint.href, signal)).otherScheme;
  } finally {
    await check.close();
  }
}
