import type { Metrics } from '../telemetry/metrics.ts';
import type { CertificateService } from './service.ts';

/** Every host's certificate as `cert ls` has it: when it ends, and its state, those that there is none for included. */
export function measureCertificates(metrics: Metrics, service: Pick<CertificateService, 'list'>): void {
  metrics.gauge(
    'certificate_not_after_timestamp_seconds',
    'When the certificate in use for a host ends, seconds since 1970.',
    ['host'],
    (gauge) => {
      gauge.reset();
      for (const { host, notAfter } of service.list()) {
        if (notAfter !== null) gauge.set({ host }, Date.parse(notAfter) / 1000);
      }
    },
  );
  metrics.gauge(
    'certificate_not_before_timestamp_seconds',
    'When the certificate in use for a host began, seconds since 1970.',
    ['host'],
    (gauge) => {
      gauge.reset();
      for (const { host, notBefore } of service.list()) {
        if (notBefore !== null) gauge.set({ host }, Date.parse(notBefore) / 1000);
      }
    },
  );
  metrics.gauge(
    'certificate_state',
    'The state of the certificate of a host: always 1, with the state as a label.',
    ['host', 'state'],
    (gauge) => {
      gauge.reset();
      for (const { host, state } of service.list()) gauge.set({ host, state }, 1);
    },
  );
}
