import type { Migration } from '../database.ts';

/** Since when an imported certificate is taken back, and which CAs refused a host before another one issued (JSON). */
export const released: Migration = {
  name: 'certificates that are taken back, and refusals before a success',
  sql: `
    ALTER TABLE certificates ADD COLUMN released_at INTEGER;
    ALTER TABLE certificate_hosts ADD COLUMN refused TEXT;
  `,
};
