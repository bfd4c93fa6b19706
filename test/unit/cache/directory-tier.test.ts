import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { blobTierConformance } from '../../conformance/blob-tier.ts';
import { DirectoryTier } from '../../support/directory-tier.ts';

blobTierConformance('DirectoryTier', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tier-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return DirectoryTier.open(directory);
});
