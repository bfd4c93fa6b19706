import type { Config, ListenAddress } from '../config/config.ts';
import type { BoundAddress, EdgeAddresses } from '../edge/listeners.ts';

/** Where the gateway listens, `host:port`. */
export interface AddressTexts {
  readonly https: readonly string[];
  readonly http: readonly string[];
  readonly metrics: string | null;
}

/** The configuration as it is now, with the ports as they were bound; the same object until it changes. */
export function boundConfig(reloader: { readonly config: Config }, { https, http }: EdgeAddresses): () => Config {
  const bind = (config: Config) => ({
    ...config,
    listen: { ...config.listen, https: asListen(https), http: asListen(http) },
  });
  let [from, bound] = [reloader.config, bind(reloader.config)];
  return () => {
    if (from !== reloader.config) [from, bound] = [reloader.config, bind(reloader.config)];
    return bound;
  };
}

/** The listener that `alias add` asks whether it serves the alias. */
export function ownListener({ https, http }: EdgeAddresses): { host: string; port: number; tls: boolean } {
  const at = https ?? http;
  if (at === null) throw new Error('nothing listens');
  // A listener bound to all addresses of this machine is reached at any of them.
  const host = at.address === '::' || at.address === '0.0.0.0' ? '127.0.0.1' : at.address;
  return { host, port: at.port, tls: https !== null };
}

/** For people and logs. */
export function asText({ https, http, metrics }: EdgeAddresses): AddressTexts {
  const text = ({ address, port }: BoundAddress) => `${address.includes(':') ? `[${address}]` : address}:${port}`;
  return {
    https: https === null ? [] : [text(https)],
    http: http === null ? [] : [text(http)],
    metrics: metrics === null ? null : text(metrics),
  };
}

function asListen(bound: BoundAddress | null): ListenAddress | null {
  return bound === null ? null : { host: bound.address, port: bound.port };
}
