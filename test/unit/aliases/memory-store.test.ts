import { aliasStoreConformance } from '../../conformance/alias-store.ts';
import { MemoryAliasStore } from '../../support/alias-store.ts';

aliasStoreConformance('MemoryAliasStore', () => {
  const store = new MemoryAliasStore();
  return { store, another: () => store.another(), reopen: () => store.another() };
});
