import { Command } from 'commander';
import type { TagHistory, TagSpanRow } from '../admin/contract.ts';
import type { Cell } from './output.ts';
import type { Session } from './session.ts';

export function tagCommands(session: Session): Command {
  const { output } = session;
  const group = new Command('tag').description('what tags stood for, as this gateway saw it');

  group
    .command('history')
    .description(
      'what a tag stood for and when, the newest first; without a tag, what each tag of the repository stands for',
    )
    .argument('<image>', 'its name, as docker pull takes it')
    .option('--json', 'print JSON')
    .action(async (image: string, options: { json?: boolean }) => {
      const found = (await session.act('tag.history', { image })) as TagHistory;
      if (options.json === true) return output.json(found);
      if (found.spans.length === 0) {
        return output.line(
          `nothing was seen of ${found.image} yet: a tag is seen when it is pulled through this gateway`,
        );
      }
      const spans = merged(found.spans);
      const isCooled = spans.some(({ passesFrom }) => passesFrom !== null);
      output.table(
        ['tag', 'digest', 'from', 'last seen', ...(isCooled ? ['passes'] : [])],
        spans.map((span) => [
          span.tag,
          span.digest,
          short(span.from),
          short(span.to),
          ...(isCooled ? [passes(span, Date.now())] : []),
        ]),
      );
    });

  return group;
}

/** What clients that accept different types were given of one digest is one row for a person. */
function merged(spans: readonly TagSpanRow[]): TagSpanRow[] {
  const rows: TagSpanRow[] = [];
  for (const span of spans) {
    const place = rows.findIndex(
      ({ tag, digest, from }) => tag === span.tag && digest === span.digest && from <= span.to,
    );
    const row = rows[place];
    if (row === undefined) rows.push(span);
    else {
      rows[place] = {
        ...row,
        from: row.from < span.from ? row.from : span.from,
        to: row.to > span.to ? row.to : span.to,
      };
    }
  }
  return rows;
}

function passes({ passesFrom }: TagSpanRow, now: number): Cell {
  if (passesFrom === null) return { text: '-', tone: 'dim' };
  return Date.parse(passesFrom) <= now
    ? { text: `since ${short(passesFrom)}`, tone: 'good' }
    : { text: `from ${short(passesFrom)} on`, tone: 'warn' };
}

/** ISO 8601 to the minute, UTC. */
function short(time: string): string {
  return `${time.slice(0, 16)}Z`;
}
