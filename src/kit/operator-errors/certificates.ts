import { failure, type OperatorErrorEntry, usage } from './entry.ts';

/** Of certificates and those who issue them. */
export const CERTIFICATE_ERRORS = {
  TLS_OFF: failure(
    'the gateway has no certificates: tls.mode is off',
    'look at the program in front of it that terminates TLS, or set tls.mode to acme or internal',
  ),
  HOST_INVALID: usage(
    'what was given is no host name and no alias',
    'give a host name or an alias; gateway cert ls lists those there are',
  ),
  HOST_UNKNOWN: failure(
    'the host is no host of this gateway',
    'gateway cert ls lists the hosts; gateway alias add makes one',
  ),
  CERTIFICATE_UNKNOWN: failure('no certificate is held for the host', 'gateway cert ls lists those there are'),
  CERTIFICATE_REFUSED: failure(
    'the CA refused the certificate, or could not be asked; the message quotes its reason',
    'correct what the message names; gateway cert explain HOST has everything, and when it is tried again',
  ),
  CERTIFICATE_WAITING: failure(
    'the certificate is not asked for before a time that the CA or a back-off sets',
    'wait until then, the gateway tries by itself; gateway cert explain HOST says why',
  ),
  CERTIFICATE_TAKEN_OVER: failure(
    'a node stood still or was cut off during an order, and another node of the fleet went on with it',
    'see how it goes there: gateway cert explain HOST',
  ),
  CERTIFICATE_IMPOSSIBLE: failure(
    'no public CA issues certificates for the host',
    'use a host name of a domain that you own',
  ),
  CERTIFICATE_IMPORTED: failure(
    'the host is covered by an imported certificate, which is not renewed',
    'import its successor: gateway cert import CERT KEY',
  ),
  CERTIFICATE_NOT_IMPORTED: failure(
    'there is no imported certificate of the host to be removed',
    'gateway cert ls lists the certificates and their issuers',
  ),
  CERTIFICATE_INVALID: failure(
    'a certificate or key that was imported cannot be used; the message says why',
    'give the whole chain and its private key, both in PEM form, valid now',
  ),
  INTERNAL_CA_DAMAGED: failure(
    'the key and the certificate of the local CA cannot be read or do not belong together',
    'restore both from a copy, or remove both: a new CA is made at the next start, and clients must trust that one',
  ),
  ACME_CA_FILE: usage(
    "the file with the CA's root certificate cannot be read",
    'check acme.issuers[].caFile, or GATEWAY_ACME_CA_FILE',
  ),
} satisfies Record<string, OperatorErrorEntry>;
