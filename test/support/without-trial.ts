/**
 * The arguments of a command that puts a registry into the table without asking it anything: most tests name registries that are nowhere, are
 * not there yet, or count what they are asked. What the trial sees is the matter of test/integration/registry-trial.test.ts.
 */
export function withoutTrial(args: readonly string[]): readonly string[] {
  const [noun, verb] = args;
  const triesIt = (noun === 'alias' && verb === 'add') || (noun === 'registry' && verb === 'set');
  return triesIt && !args.includes('--no-check') ? [...args, '--no-check'] : args;
}
