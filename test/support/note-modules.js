import { appendFileSync } from 'node:fs';
import { registerHooks } from 'node:module';

// Preloaded by --import: writes down the URL of each module that the process loads, a line each.
const file = process.env.NOTED_MODULES;
if (file !== undefined) {
  registerHooks({
    load(url, context, nextLoad) {
      appendFileSync(file, `${url}\n`);
      return nextLoad(url, context);
    },
  });
}
