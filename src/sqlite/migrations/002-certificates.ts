import type { Migration } from '../database.ts';

export const certificates: Migration = { name: 'certificates', sql: '' };
