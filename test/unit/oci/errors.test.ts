import { describe, expect, it } from 'vitest';
import { CATALOGUE, type ErrorName, RegistryError, renderError } from '../../../src/oci/errors.ts';
import { REGISTRY_HEADERS } from '../../../src/oci/response-headers.ts';

/** distribution-spec, *Error Codes*, and the two that this gateway adds for failures that are not the client's. */
const CODES = [
  ...['NAME_INVALID', 'DIGEST_INVALID', 'UNAUTHORIZED', 'DENIED', 'NAME_UNKNOWN', 'MANIFEST_UNKNOWN'],
  ...['BLOB_UNKNOWN', 'UNSUPPORTED', 'RANGE_INVALID', 'TOOMANYREQUESTS', 'UNAVAILABLE', 'UNKNOWN'],
];

describe.each(Object.keys(CATALOGUE) as ErrorName[])('%s', (kind) => {
  const entry = CATALOGUE[kind];
  const facts = Object.fromEntries(
    [...`${entry.message} ${entry.next}`.matchAll(/\{(\w+)\}/g)].map(([, name]) => [name ?? '', `<${name}>`]),
  );

  it('has a code that clients know, and a status of its kind', () => {
    expect(CODES).toContain(entry.code);
    expect(entry.status >= 400 && entry.status <= 508).toBe(true);
    // What fails here or upstream is never dressed up as the client's mistake, nor the other way round.
    expect(['UNAVAILABLE', 'UNKNOWN'].includes(entry.code)).toBe(entry.status >= 500);
  });

  it('says what happened and what to do next, with every fact filled in', () => {
    const { body } = renderError(new RegistryError(kind, { facts }));
    const { errors } = JSON.parse(body) as { errors: { code: string; message: string }[] };
    expect(errors.map(({ code }) => code)).toEqual([entry.code]);
    expect(errors[0]?.message).not.toMatch(/[{}]/);
    expect(errors[0]?.message.split('; ').length).toBeGreaterThan(1);
    expect(entry.next.length).toBeGreaterThan(10);
  });
});

it('tells clients that are refused with 503 when to come back, whoever refuses them', () => {
  const refused = (retryAfter?: number) =>
    renderError(new RegistryError('unavailable', retryAfter === undefined ? {} : { retryAfter })).headers[
      'retry-after'
    ];
  expect([refused(), refused(60)]).toEqual(['5', '60']);
});

it('renders status, headers and body as the specification writes them', () => {
  const error = new RegistryError('upstreamRateLimited', {
    facts: { registry: 'docker.io' },
    detail: { limit: 100 },
    retryAfter: 0.2,
    headers: { 'x-more': '1' },
  });
  const { status, headers, body } = renderError(error);
  expect([status, headers]).toEqual([
    429,
    {
      'content-type': 'application/json',
      ...REGISTRY_HEADERS,
      'retry-after': '1',
      'x-more': '1',
    },
  ]);
  expect(JSON.parse(body)).toEqual({
    errors: [
      {
        code: 'TOOMANYREQUESTS',
        message: expect.stringContaining('docker.io limits'),
        detail: { registry: 'docker.io', limit: 100 },
      },
    ],
  });
});

it('quotes the reason of a registry behind the own one, and has facts and its code for programs', () => {
  const error = new RegistryError('manifestUnknown', {
    facts: { registry: 'ghcr.io', repository: 'org/app', reference: '1', reason: 'it answered 404' },
    says: { by: 'ghcr.io', message: 'OCI index found', code: 'MANIFEST_UNKNOWN' },
  });
  expect(JSON.parse(renderError(error).body).errors).toEqual([
    {
      code: 'MANIFEST_UNKNOWN',
      message: 'ghcr.io/org/app has no manifest 1; check the tag or digest; ghcr.io says: "OCI index found"',
      detail: { registry: 'ghcr.io', repository: 'org/app', reference: '1', upstream: 'MANIFEST_UNKNOWN' },
    },
  ]);
});
