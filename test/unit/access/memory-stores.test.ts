import { counterStoreConformance } from '../../conformance/counter-store.ts';
import { userStoreConformance } from '../../conformance/user-store.ts';
import { MemoryCounterStore, MemoryUserStore } from '../../support/access-stores.ts';

userStoreConformance('MemoryUserStore', () => {
  const store = new MemoryUserStore();
  return { store, another: () => store.another(), reopen: () => store.another() };
});
counterStoreConformance('MemoryCounterStore', () => {
  const store = new MemoryCounterStore();
  return { store, another: () => store.another(), reopen: () => store.another() };
});
