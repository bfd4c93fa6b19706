import type { Metrics } from '../telemetry/metrics.ts';
import { type Issuer, type IssuerError, shortType } from './issuer.ts';

/** What is measured about certificates. */
export interface CertificateMetrics {
  attempted(issuer: string): void;
  failed(issuer: string, error: IssuerError): void;
}

export function certificateMetrics(
  metrics: Metrics,
  read: { expiries: () => Iterable<readonly [host: string, secondsLeft: number]>; issuers: readonly Issuer[] },
): CertificateMetrics {
  metrics.gauge(
    'certificate_expiry_seconds',
    'Seconds until the certificate in use for a host runs out; negative once it has.',
    ['host'],
    (gauge) => {
      gauge.reset();
      for (const [host, left] of read.expiries()) gauge.set({ host }, left);
    },
  );
  metrics.gauge(
    'acme_clock_skew_seconds',
    "This machine's clock minus the CA's, as its last answer showed.",
    ['issuer'],
    (gauge) => {
      gauge.reset();
      for (const issuer of read.issuers) {
        const skew = issuer.clockSkew();
        if (skew !== null) gauge.set({ issuer: issuer.name }, skew / 1000);
      }
    },
  );
  const attempts = metrics.counter('certificate_attempts_total', 'Attempts to get a certificate.', ['issuer']);
  const failures = metrics.counter(
    'certificate_failures_total',
    'Attempts that failed, by the problem type that the CA gave, or one of ours.',
    ['issuer', 'type'],
  );
  return {
    attempted: (issuer) => attempts.inc({ issuer }),
    failed: (issuer, error) => failures.inc({ issuer, type: shortType(error.type) }),
  };
}
