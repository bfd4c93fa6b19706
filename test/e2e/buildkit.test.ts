import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Buildkitd, startBuildkitd } from '../support/buildkitd.ts';
import { CLIENTS_BED_NEEDS, type ClientsBed, DOMAIN, openClientsBed } from '../support/clients-bed.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { buildImage } from '../support/oci-image.ts';
import { runOk } from '../support/processes.ts';
import { findProgram } from '../support/program-list.ts';
import { describeWith } from '../support/programs.ts';

// BuildKit is built by hand (CONTRIBUTING.md, Tests). The network has no way out, so what a Dockerfile names came through the gateway.

const image = buildImage('base', [200_000, 3_000]);
const FOLDER = '/etc/buildkit';

const lacking = (['buildkitd', 'buildctl'] as const).filter((client) => findProgram(client) === null);
const missing = lacking.length === 0 ? [] : [`${lacking.join(' and ')} (CONTRIBUTING.md, Tests)`];

describeWith(
  [...CLIENTS_BED_NEEDS, 'dockerd'],
  'BuildKit as `gateway client buildkit` configures it',
  () => {
    let bed: ClientsBed;
    let daemon: Buildkitd;
    showLogOfFailures(() => bed?.gateway);

    beforeAll(async () => {
      bed = await openClientsBed({ image, names: ['library/base', 'team/base', 'base'] });
      const files = await bed.configure('buildkit');
      // Machines that never had BuildKit lack its folder, so there is nothing to bind over.
      const config = join(bed.folder, FOLDER, 'buildkitd.toml');
      const content = files.get(join(FOLDER, 'buildkitd.toml')) ?? '';
      writeFileSync(config, content.replaceAll(FOLDER, join(bed.folder, FOLDER)));
      daemon = await startBuildkitd({ config, within: bed.space });
    });

    afterAll(async () => {
      await daemon?.close();
      await bed?.close();
    });

    /** Builds it, and expects the layers of the image in what comes out. */
    async function build(dockerfile: string): Promise<string> {
      const target = join(mkdtempSync(join(bed.folder, 'built-')), 'image.tar');
      const built = await daemon.build(dockerfile, target);
      expect(built.code, `${dockerfile}\n${built.stderr}\n${daemon.log().slice(-2_000)}`).toBe(0);
      return (await runOk({ command: 'tar', args: ['-tf', target] })).stdout;
    }

    it.each([
      'base:1',
      'docker.io/library/base:1',
      'quay.io/team/base:1',
      `quay.io/team/base:1@${image.manifest.digest}`,
      'registry.corp:5000/base:1',
      `${DOMAIN}/quay.io/team/base:1`,
      `corp.${DOMAIN}/base:1`,
    ])('builds FROM %s', async (name) => {
      const listed = await build(`FROM ${name}\nLABEL from="${name}"\n`);
      for (const { digest } of image.layers) expect(listed).toContain(digest.slice('sha256:'.length));
    });

    it('builds from stages of several registries, out of reach of each of them', async () => {
      await build(
        'FROM gcr.io/team/app-0:1 AS one\nFROM registry.k8s.io/team/app-1:1\nCOPY --from=one / /one/\nCOPY --from=mcr.microsoft.com/team/app-2:1 / /two/\n',
      );
    });

    it('builds what the gateway has kept while the registry behind it is gone', async () => {
      await build('FROM ghcr.io/team/app-3:1\n');
      await daemon.prune();
      await bed.upstream.stop();
      try {
        await build('FROM ghcr.io/team/app-3:1\nLABEL again="yes"\n');
      } finally {
        await bed.upstream.start();
      }
    });
  },
  missing,
);
