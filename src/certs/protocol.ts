import { constants } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';

/** What the gateway speaks with clients, for every context that a handshake meets. Forward secrecy only. */
export const PROTOCOL: SecureContextOptions = {
  minVersion: 'TLSv1.2',
  maxVersion: 'TLSv1.3',
  // AES-128 first: ten rounds a block instead of fourteen, and nobody breaks either; what Go servers choose, too.
  ciphers: [
    'TLS_AES_128_GCM_SHA256',
    'TLS_AES_256_GCM_SHA384',
    'TLS_CHACHA20_POLY1305_SHA256',
    'ECDHE-ECDSA-AES128-GCM-SHA256',
    'ECDHE-RSA-AES128-GCM-SHA256',
    'ECDHE-ECDSA-AES256-GCM-SHA384',
    'ECDHE-RSA-AES256-GCM-SHA384',
    'ECDHE-ECDSA-CHACHA20-POLY1305',
    'ECDHE-RSA-CHACHA20-POLY1305',
  ].join(':'),
  honorCipherOrder: true,
  // A client that puts ChaCha20 first has no hardware for AES (a Raspberry Pi 4): it gets that.
  secureOptions: constants.SSL_OP_PRIORITIZE_CHACHA,
};
