import type { Config } from '../config/config.ts';
import type { Locks } from '../kit/locks.ts';
import { type Clock, systemClock } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { AcmeCertificates } from './acme-certificates.ts';
import { measureCertificates } from './certificate-metrics.ts';
import type { Challenges } from './challenges.ts';
import type { DnsZones } from './dns-01.ts';
import { InternalCertificates } from './internal-certificates.ts';
import type { Issuer } from './issuer.ts';
import { type AttemptSettings, proofsOf } from './order-attempt.ts';
import type { CertificateOperations, CertificateService } from './service.ts';
import type { CertStore } from './store.ts';

export interface Certificates extends CertificateService, CertificateOperations {
  /** For orders from now on; which CAs are asked stays. */
  reconfigure(config: Pick<Config, 'listen' | 'acme'>, zones: DnsZones | null): void;
}

/** Where CAs connect to validate (RFC 8555 §8.3, RFC 8737 §3), and so where the self-check does. */
const CA_PORTS = { http: 80, https: 443 };

/** Opens the certificates of `tls.mode`, with what is stored of them: null where it is `off` and another program terminates TLS. @throws {OperatorError} */
export async function createCertificates(options: {
  readonly config: Pick<Config, 'domain' | 'dataDir' | 'listen' | 'tls' | 'acme'>;
  readonly store: CertStore;
  readonly challenges: Challenges;
  /** Where DNS-01 challenges are answered; none without it. */
  readonly zones?: DnsZones | null;
  /** Resolves once every process of this gateway answers the challenges that `alpnChallenges` now has. Default: there is this one only. */
  readonly published?: (() => Promise<void>) | undefined;
  readonly locks: Locks;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** In the order they are tried; needed by `tls.mode: acme`. */
  readonly issuers: readonly Issuer[];
  readonly clock?: Clock;
  readonly ports?: AttemptSettings['ports'];
}): Promise<Certificates | null> {
  const { config, store, challenges, locks, metrics, issuers } = options;
  const log = options.log.child({ room: 'certs' });
  const clock = options.clock ?? systemClock;
  if (config.tls.mode === 'off') return null;
  if (config.tls.mode === 'internal') {
    const { domain, dataDir } = config;
    return measured(metrics, await InternalCertificates.open({ domain, dataDir, store, log, now: clock.now }));
  }
  const service = await AcmeCertificates.open({
    domain: config.domain,
    settings: {
      issuers,
      ...proofsOf(config),
      ports: options.ports ?? CA_PORTS,
    },
    store,
    challenges,
    zones: options.zones ?? null,
    wildcard: config.acme.wildcard,
    published: options.published,
    locks,
    log,
    metrics,
    clock,
  });
  return measured(metrics, service);
}

function measured(metrics: Metrics, service: Certificates): Certificates {
  measureCertificates(metrics, service);
  return service;
}
