import { expect, test } from 'vitest';
import { readDocument } from '../support/documents.ts';

// Its command lines are parsed in document-lines.test.ts.

test.each(['deploy/README.md', 'deploy/FLEET.md'])('links of %s lead to headings that are there', (name) => {
  const text = readDocument(name);
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
  const links = [...text.matchAll(/\]\(#([\w-]+)\)/g)].map(([, anchor]) => anchor);
  expect(links.length).toBeGreaterThan(3);
  for (const link of links) expect(headings).toContain(link);
});
