import { blobTierConformance } from '../../conformance/blob-tier.ts';
import { MemoryTier } from '../../support/memory-tier.ts';

blobTierConformance('MemoryTier', async () => new MemoryTier());
