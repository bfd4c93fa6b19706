import { parseImageName } from '../../images/image-name.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { iso } from '../../kit/time.ts';
import type { TagSpan } from '../../policy/history-store.ts';
import type { Operation, TagHistory, TagSpanRow } from '../contract.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';

/** Rows shown of one tag, and of one repository; what is more is for whoever reads the database. */
const MAX_ROWS = 1_000;

export function tagOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    'tag.history': async (input): Promise<TagHistory> => {
      const { image: written } = await parseInput('tag.history', input);
      const { reference, registry, repository } = parseImageName(written);
      if (reference.kind === 'digest')
        throw new OperatorError('IMAGE_INVALID', `"${written.slice(0, 200)}" names a digest, and a tag is meant here`);
      const key = { registry, repository };
      const { history, cooldown } = deps.passage();
      const row = (tag: string, { variant, digest, from, to, firstSeen }: TagSpan): TagSpanRow => {
        const passesFrom = firstSeen === null ? null : cooldown.passesFrom(key, tag, firstSeen);
        return {
          ...{ tag, variant, digest, from: iso(from), to: iso(to) },
          firstSeen: firstSeen === null ? null : iso(firstSeen),
          passesFrom: passesFrom === null ? null : iso(passesFrom),
        };
      };
      const name = `${registry}/${repository}`;
      // Without a tag docker means latest; here it is the repository that is meant.
      if (!/[:@]/.test(written.slice(written.lastIndexOf('/') + 1))) {
        const tags = await history.tags(key, MAX_ROWS);
        return { image: name, spans: tags.map(({ tag, ...span }) => row(tag, span)) };
      }
      const { tag } = reference;
      const spans = await history.spans(key, tag, { limit: MAX_ROWS });
      return { image: `${name}:${tag}`, spans: spans.map((span) => row(tag, span)) };
    },
  };
}
