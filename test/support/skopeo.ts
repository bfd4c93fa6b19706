import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sha256 } from './content.ts';
import type { TestImage } from './oci-image.ts';
import { type Ran, runProgram, type Surroundings } from './processes.ts';
import { programPath } from './programs.ts';

export interface Pulled {
  readonly ran: Ran;
  /** Digests of all it wrote: manifest, configuration and layers. */
  readonly digests: ReadonlySet<string>;
}

/** Pulls `host[:port]/name:tag` with skopeo, trusting the PEM given or that of a directory, keeping the digests, and tells what arrived. */
export async function skopeoPull(options: {
  readonly image: string;
  readonly ca: string | { readonly directory: string };
  readonly within?: Surroundings | undefined;
  readonly ms?: number;
}): Promise<Pulled> {
  const folder = mkdtempSync(join(tmpdir(), 'skopeo-'));
  try {
    const certificates = typeof options.ca === 'string' ? join(folder, 'certs') : options.ca.directory;
    if (typeof options.ca === 'string') {
      mkdirSync(certificates);
      writeFileSync(join(certificates, 'ca.crt'), options.ca);
    }
    const ran = await runProgram({
      command: programPath('skopeo'),
      args: [
        '--insecure-policy',
        'copy',
        '--preserve-digests',
        '--src-cert-dir',
        certificates,
        `docker://${options.image}`,
        `dir:${join(folder, 'image')}`,
      ],
      within: options.within,
      ms: options.ms ?? 120_000,
    });
    const digests = ran.code === 0 ? digestsIn(join(folder, 'image')) : new Set<string>();
    return { ran, digests };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The digests of an image, to compare with what arrived. */
export function digestsOf(image: TestImage): ReadonlySet<string> {
  return new Set([image.manifest, image.config, ...image.layers].map(({ digest }) => digest));
}

/** Of the bytes on disk, whatever the file names claim. */
function digestsIn(folder: string): Set<string> {
  const names = readdirSync(folder).filter((name) => name !== 'version');
  return new Set(names.map((name) => sha256(readFileSync(join(folder, name)))));
}
