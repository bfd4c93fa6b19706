import { z } from 'zod';
import { parseDuration } from '../../config/values.ts';
import { CLIENT_KINDS } from '../client-kinds.ts';

/** Longest text that a name, host or URL of the table can be; what is longer is a mistake before it is anything else. */
const MAX_TEXT = 2048;

const text = z.string().min(1).max(MAX_TEXT);
const NameInput = z.strictObject({ name: text });
const HostInput = z.strictObject({ host: text });

/** A duration as the configuration writes it. */
const duration = z.string().transform((written, context) => {
  try {
    return parseDuration(written);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
    return z.NEVER;
  }
});

/** What each operation takes, by its name; those that are not here take nothing. */
export const SHAPES = {
  'alias.add': z.strictObject({
    name: text,
    registry: text,
    endpoints: z.array(text).default([]),
    certificate: z.boolean().default(true),
  }),
  'alias.show': NameInput,
  'alias.rm': NameInput,
  'alias.import': z.strictObject({ yaml: z.string(), file: z.string().default('the input') }),
  'registry.show': HostInput,
  'registry.set': z.strictObject({
    host: text,
    endpoints: z.array(text).min(1).optional(),
    proxy: text.nullable().optional(),
    credentials: z
      .strictObject({ username: text, password: z.string().min(1) })
      .nullable()
      .optional(),
    public: z.boolean().optional(),
  }),
  'registry.rm': HostInput,
  'cert.show': HostInput,
  'cert.renew': z.strictObject({ hosts: z.array(text).min(1).max(1000) }),
  'cert.explain': HostInput,
  'cert.import': z.strictObject({ certificate: z.string().min(1), key: z.string().min(1) }),
  'cert.export': HostInput,
  client: z.strictObject({ client: z.enum(CLIENT_KINDS) }),
  'cache.prune': z.strictObject({ olderThan: duration.optional(), registry: text.optional() }),
  'user.add': NameInput,
  'user.rm': NameInput,
};
