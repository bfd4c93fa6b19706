import { OperatorError } from '../kit/operator-error.ts';

/** What an image runs on (image-spec, *Image Index*: `platform`). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** Of the processor: `v7`, `v8`; empty where there is none, or any will do. */
  readonly variant: string;
}

/** Names that people and `uname` have for what images call otherwise (containerd, *platforms*). */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  x86_64: 'amd64',
  'x86-64': 'amd64',
  x64: 'amd64',
  i386: '386',
  ia32: '386',
  aarch64: 'arm64',
  armhf: 'arm',
};

/** What an architecture without a variant is, where images are made for a variant of it (containerd, *platforms*). */
const DEFAULT_VARIANTS: Readonly<Record<string, string>> = { arm64: 'v8', arm: 'v7' };

/** Reads `linux/arm64`, `linux/arm/v7`. @throws {OperatorError} `PLATFORM_INVALID` */
export function parsePlatform(text: string): Platform {
  const [os = '', architecture = '', variant = '', ...more] = text.trim().toLowerCase().split('/');
  const words = [os, architecture, ...(variant === '' ? [] : [variant])];
  if (more.length > 0 || !words.every((word) => /^[a-z0-9_.-]+$/.test(word)))
    throw new OperatorError('PLATFORM_INVALID', `"${text.slice(0, 100)}" is no platform`);
  return { os, architecture: ARCHITECTURES[architecture] ?? architecture, variant };
}

/** Of the machine that this runs on, of Linux: what registries have. */
export function ownPlatform(architecture: string = process.arch): Platform {
  return { os: 'linux', architecture: ARCHITECTURES[architecture] ?? architecture, variant: '' };
}

export function platformText({ os, architecture, variant }: Platform): string {
  return `${os}/${architecture}${variant === '' ? '' : `/${variant}`}`;
}

/** Whether what was made for `has` is what is meant by `wanted`. */
export function isPlatform(has: Platform, wanted: Platform): boolean {
  if (has.os !== wanted.os || has.architecture !== wanted.architecture) return false;
  return wanted.variant === '' || variantOf(has) === wanted.variant;
}

/** Whether it is what an architecture means where no variant is named. */
export function isUsualVariant({ architecture, variant }: Platform): boolean {
  return variant === '' || variant === DEFAULT_VARIANTS[architecture];
}

function variantOf({ architecture, variant }: Platform): string {
  return variant === '' ? (DEFAULT_VARIANTS[architecture] ?? '') : variant;
}
