import type { z } from 'zod';
import { OperatorError } from '../../kit/operator-error.ts';

type Shapes = typeof import('./shapes.ts').SHAPES;

/** Checks what came in against the shape that the operation takes. @throws {OperatorError} usage */
export async function parseInput<N extends keyof Shapes>(operation: N, input: unknown): Promise<z.output<Shapes[N]>> {
  // Loaded by the first command: a gateway that is given none does without zod, which takes 5 MiB.
  const { SHAPES } = await import('./shapes.ts');
  const shape: z.ZodType = SHAPES[operation];
  const parsed = shape.safeParse(input);
  if (parsed.success) return parsed.data as z.output<Shapes[N]>;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'input'}: ${issue.message}`);
  throw new OperatorError('INPUT_INVALID', problems.join('; '), {
    next: 'gateway --help lists the commands and what they take',
  });
}
