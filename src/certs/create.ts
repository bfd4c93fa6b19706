import type { Config } from '../config/config.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { InternalCertificates } from './internal-service.ts';
import type { CertificateOperations, CertificateService } from './service.ts';
import type { CertStore } from './store.ts';

export type Certificates = CertificateService & CertificateOperations;

/** The certificates of `tls.mode`: null where it is `off` and another program terminates TLS. */
export function createCertificates(options: {
  config: Config;
  store: CertStore;
  log: Logger;
  metrics: Metrics;
}): Certificates | null {
  const { config, store, log } = options;
  if (config.tls.mode === 'off') return null;
  return new InternalCertificates({ domain: config.domain, dataDir: config.dataDir, store, log });
}
