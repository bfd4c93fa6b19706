import type { FakeRegistryOptions } from './options.ts';

/** How real registries behave, as far as a fake on loopback can; spread one into the options: `{...QUIRKS.ghcr, port: 0}`. */
export const QUIRKS = {
  /** Tokens per repository, blobs behind signed URLs on another origin, pulls counted by manifest GET. */
  docker: {
    auth: { scheme: 'bearer', service: 'registry.docker.io', tokenField: 'both' },
    redirect: { to: 'signed', lifetime: 60_000, status: 307 },
    pullLimit: { limit: 100 },
  },
  /** Relative redirects. */
  gcr: { auth: { scheme: 'bearer', service: 'gcr.io' }, redirect: { to: 'relative', status: 302 } },
  /** 401 without a challenge. */
  gcrBare: { auth: { scheme: 'bearer', noChallenge: true } },
  /** Redirects manifests and blobs, knows no referrers. */
  k8s: { redirect: { to: 'absolute', status: 307, manifests: true }, referrers: false },
  quay: { auth: { scheme: 'bearer', service: 'quay.io' }, redirect: { to: 'signed', lifetime: 1000, status: 302 } },
  /** Placeholder scope at `/v2/`, refusals at the token endpoint, indexes only to who accepts them, no referrers. */
  ghcr: {
    auth: { scheme: 'bearer', service: 'ghcr.io', pingScope: 'repository:user/image:pull', tokenRefusal: 403 },
    strictAccept: true,
    referrers: false,
    tagPages: 100,
    redirect: { to: 'signed', lifetime: 60_000, status: 307 },
  },
  mcr: { redirect: { to: 'absolute', status: 307 } },
  /** An expired token is challenged with a realm that leads nowhere. */
  nvcr: {
    auth: {
      scheme: 'bearer',
      service: 'registry',
      expiredChallenge: 'Bearer realm="https://authn.invalid/token",service="ngc",scope="x"',
    },
  },
  /** Answers `access_token` only, and no lifetime. */
  elastic: { auth: { scheme: 'bearer', tokenField: 'access_token', saysLifetime: null } },
  /** 401 to every blob HEAD. */
  ecr: { auth: { scheme: 'bearer', service: 'public.ecr.aws' }, refuseHead: { blob: 401 } },
  gitlab: { auth: { scheme: 'bearer', service: 'container_registry' } },
  redhat: { gzip: true },
} as const satisfies Record<string, FakeRegistryOptions>;
