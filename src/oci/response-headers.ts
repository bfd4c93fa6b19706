/** Docker's clients take a registry for version 2 by this; every answer has it. */
export const API_VERSION = 'registry/2.0';

/**
 * What a browser needs to know of bytes that came from a registry, whose names and contents anyone may have chosen: they are what their type
 * says, and nothing in them runs, loads or is framed under the gateway's name.
 */
export const SAFETY_HEADERS = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox",
} as const;

/** What every answer of the registry API carries, whatever its status. */
export const REGISTRY_HEADERS = { 'docker-distribution-api-version': API_VERSION, ...SAFETY_HEADERS } as const;
