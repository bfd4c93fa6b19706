import { z } from 'zod';
import { OperatorError } from '../../kit/operator-error.ts';

/** Longest text that a name, host or URL of the table can be; what is longer is a mistake before it is anything else. */
const MAX_TEXT = 2048;

export const text = z.string().min(1).max(MAX_TEXT);

/** Checks what came in against its shape. @throws {OperatorError} usage */
export function parseInput<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'input'}: ${issue.message}`);
  throw new OperatorError('INPUT_INVALID', problems.join('; '), {
    next: 'gateway --help lists the commands and what they take',
    usage: true,
  });
}
