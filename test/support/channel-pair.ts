import { deserialize, serialize } from 'node:v8';
import { Channel, type Port } from '../../src/workers/channel.ts';

/** Two channels that speak to each other as an owner and its worker do, values cloned on the way; `cut` ends both, as a process that dies. */
export function channelPair(): { owner: Channel; worker: Channel; cut: () => void } {
  const sides = [0, 1].map(() => ({ messages: [] as ((message: unknown) => void)[], closes: [] as (() => void)[] }));
  let open = true;
  const port = (own: number): Port => ({
    send(message) {
      const copy: unknown = deserialize(serialize(message));
      setImmediate(() => {
        if (open) for (const listener of sides[1 - own]?.messages ?? []) listener(copy);
      });
      return open;
    },
    onMessage: (listener) => void sides[own]?.messages.push(listener),
    onClose: (listener) => void sides[own]?.closes.push(listener),
  });
  return {
    owner: new Channel(port(0)),
    worker: new Channel(port(1)),
    cut() {
      open = false;
      for (const { closes } of sides) for (const listener of closes) listener();
    },
  };
}
