import { isHostless } from '../../aliases/names.ts';
import type { CertificateInfo } from '../../certs/service.ts';
import { isWildcard, wildcardDomain } from '../../certs/wildcard.ts';
import { type CertificateMaterial, coversHost, readMaterial, requireKnownIssuer } from '../../certs/x509.ts';
import { didYouMean } from '../../kit/did-you-mean.ts';
import { normaliseHostName } from '../../kit/host-name.ts';
import { parseAddress } from '../../kit/networks.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { iso } from '../../kit/time.ts';
import type { Operation, OperationContext } from '../contract.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';
import { waitUntilServed } from '../probe.ts';

type Certificates = NonNullable<OperationsDeps['certificates']>;

export function certOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    'cert.ls': async () => (deps.certificates?.list() ?? []).toSorted((one, other) => (one.host < other.host ? -1 : 1)),

    'cert.show': async (input) => {
      const host = certificateHost(deps, (await parseInput('cert.show', input)).host);
      const info = required(deps).info(host);
      if (info === null) throw unknown(host);
      return info;
    },

    'cert.renew': async (input, context): Promise<CertificateInfo[]> => {
      const certificates = required(deps);
      const hosts = (await parseInput('cert.renew', input)).hosts.map((given) => certificateHost(deps, given));
      const renewed: CertificateInfo[] = [];
      const refused: { host: string; error: OperatorError }[] = [];
      for (const host of hosts) {
        try {
          renewed.push(await renew(deps, certificates, host, context));
        } catch (error) {
          // With several hosts, one that is refused does not keep the others from being renewed.
          if (!(error instanceof OperatorError) || hosts.length === 1) throw error;
          context.step('refused', `${host}: ${error.message}`);
          refused.push({ host, error });
        }
      }
      const [first] = refused;
      if (first !== undefined) {
        throw new OperatorError(
          first.error.code,
          `${refused.length} of ${hosts.length} certificates were not renewed: ${refused.map(({ host }) => host).join(', ')}`,
          { next: first.error.next },
        );
      }
      return renewed;
    },

    'cert.explain': async (input) => {
      const host = certificateHost(deps, (await parseInput('cert.explain', input)).host);
      const certificates = required(deps);
      const isKnown = host === deps.config.domain || deps.table.snapshot().hosts.has(host);
      if (!isKnown && certificates.info(host) === null) throw unknown(host);
      return certificates.explain(host);
    },

    'cert.import': async (input, context) => {
      const { certificate, key, force } = await parseInput('cert.import', input);
      announceImport(required(deps), readMaterial(certificate, key), context);
      const imported = await required(deps).importCertificate(certificate, key, force);
      await deps.live?.settled();
      return imported;
    },

    'cert.rm': async (input) => {
      const { host, now } = await parseInput('cert.rm', input);
      const removed = await required(deps).removeImported(certificateHost(deps, host), now);
      await deps.live?.settled();
      return removed;
    },

    'cert.export': async (input) => {
      const { host } = await parseInput('cert.export', input);
      return required(deps).exportCertificate(certificateHost(deps, host));
    },
  };
}

/** Says what is about to be taken into use, by whom it is trusted, and what it replaces. */
function announceImport(certificates: Certificates, material: CertificateMaterial, { step }: OperationContext): void {
  const { names, issuer, notBefore, notAfter } = material;
  step('names', names.join(', '));
  step('issuer', `${issuer}, valid from ${iso(notBefore)} until ${iso(notAfter)}`);
  step('trust', trustOf(material));
  const taken = certificates
    .list()
    .filter(({ host }) => coversHost(names, host))
    .map(({ host, issuer: held }) => `${host} (${held === null ? 'which has none' : `now of ${held}`})`);
  step(
    'hosts',
    taken.length === 0 ? 'no host of this gateway has one of these names yet' : `takes over ${taken.join(', ')}`,
  );
}

/** Whether clients that trust what this machine trusts will accept it. */
function trustOf(material: CertificateMaterial): string {
  try {
    requireKnownIssuer(material);
    return 'its chain leads to an authority that this machine trusts, or that is in the file';
  } catch (error) {
    return (error as Error).message;
  }
}

async function renew(
  deps: OperationsDeps,
  certificates: Certificates,
  host: string,
  context: OperationContext,
): Promise<CertificateInfo> {
  const { live, table, config } = deps;
  const alias = table.snapshot().hosts.get(host);
  if (alias === undefined && host !== config.domain && certificates.info(host) === null) throw unknown(host);
  if (alias !== undefined && !alias.certificate) {
    await table.setCertificate(alias.name, true);
    context.step('table', `${host} has a certificate from now on`);
  }
  if (live === null) {
    throw new OperatorError('NOT_RUNNING', `nothing runs on ${config.dataDir}, so no certificate can be obtained now`, {
      next: `start it: gateway serve; what is due is then obtained by itself, and gateway cert renew ${host} works`,
    });
  }
  const info = await certificates.renew(host, ({ step, message }) => context.step(step, message), context.signal);
  // A wildcard is seen under a name that it covers: the domain, which is in its certificate, too.
  await waitUntilServed(live, isWildcard(host) ? wildcardDomain(host) : host, info, context);
  return info;
}

function required(deps: OperationsDeps): Certificates {
  if (deps.certificates !== null) return deps.certificates;
  throw new OperatorError('TLS_OFF', 'this gateway has no certificates: tls.mode is off', {
    next: 'look at the program in front of it that terminates TLS, or set tls.mode to acme or internal',
  });
}

function unknown(host: string): OperatorError {
  return new OperatorError('CERTIFICATE_UNKNOWN', `${host} has no certificate and is no host of this gateway`, {
    next: 'gateway cert ls lists those there are; gateway alias add makes a host',
  });
}

/** The host that a certificate command means: an alias by its name, else a host, a wildcard or an address as it is. @throws {OperatorError} usage; `HOST_UNKNOWN` where another is near */
function certificateHost({ table, certificates, config }: OperationsDeps, given: string): string {
  const { aliases, hosts } = table.snapshot();
  const alias = aliases.get(given.toLowerCase());
  if (alias !== undefined) {
    if (!isHostless(alias.name, config.domain)) return alias.host;
    throw new OperatorError(
      'HOST_UNKNOWN',
      `${alias.name} has no host of its own, since the domain is the address ${config.domain}`,
      {
        next: `its images are pulled by prefix, under the certificate of that: ${config.domain}`,
      },
    );
  }
  const address = parseAddress(given.replace(/^\[|\]$/g, ''));
  if (address !== null) return address.toString();
  const wildcard = isWildcard(given);
  const result = normaliseHostName(wildcard ? wildcardDomain(given) : given);
  if (!('host' in result)) {
    throw new OperatorError('HOST_INVALID', `"${given}" ${result.problem}`, {
      next: 'give a host name or an alias; gateway cert ls lists those there are',
    });
  }
  const host = wildcard ? `*.${result.host}` : result.host;
  const known = [...aliases.keys(), ...hosts.keys(), config.domain];
  const near = known.includes(host) || certificates?.info(host) != null ? undefined : didYouMean(given, known);
  if (near === undefined) return host;
  throw new OperatorError('HOST_UNKNOWN', `${host} is no host of this gateway`, {
    next: `did you mean ${near}? Else gateway cert ls lists the hosts`,
  });
}
