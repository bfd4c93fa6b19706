import type { AliasEntry, RegistryEntry } from '../../aliases/table.ts';
import type { CertificateInfo } from '../../certs/service.ts';
import { redactUrl } from '../../kit/redact.ts';
import type { OperationsDeps } from '../deps.ts';
import type { AliasRow, RegistryRow } from '../rows.ts';

export function aliasRow(
  deps: OperationsDeps,
  alias: AliasEntry,
  held: CertificateInfo | null = deps.certificates?.info(alias.host) ?? null,
): AliasRow {
  const { name, host, registry } = alias;
  // Nothing held: either none is wanted, or the gateway orders it when it runs.
  const wanted = alias.certificate && deps.certificates !== null;
  const state = held?.state ?? (wanted ? 'pending' : 'none');
  return { name, host, registry, certificate: { state, notAfter: held?.notAfter ?? null } };
}

/** Credentials are named, never shown, and neither are those in a proxy's URL. */
export function registryRow(entry: RegistryEntry): RegistryRow {
  return {
    host: entry.host,
    endpoints: entry.endpoints,
    proxy: entry.proxy === null ? null : redactUrl(entry.proxy),
    credentials: entry.credentials !== null,
    public: entry.public,
  };
}
