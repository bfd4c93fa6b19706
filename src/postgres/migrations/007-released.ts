import type { Migration } from '../schema.ts';

/** Since when an imported certificate is taken back, and which CAs refused a host before another one issued. */
export const released: Migration = {
  name: 'certificates that are taken back, and refusals before a success',
  sql: `
    ALTER TABLE certificates ADD COLUMN released_at bigint;
    ALTER TABLE certificate_hosts ADD COLUMN refused jsonb;
  `,
};
