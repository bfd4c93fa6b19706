import { SingleNode } from '../../src/cluster/nodes.ts';
import { nodesConformance } from '../conformance/nodes.ts';

nodesConformance('one machine', true, async () => {
  const node = new SingleNode({ id: '0123456789abcdef', address: null, version: '0.1.0', draining: false });
  return { join: async () => node, close: async () => {} };
});
