/** No style and no script is written into the page: its Content-Security-Policy allows these two files alone. */
export const STYLE = `:root {
  color-scheme: light dark;
  --back: #f6f7f9; --card: #ffffff; --text: #1b1f24; --soft: #57606a; --rim: #d0d7de;
  --one: #0550ae; --two: #953800; --good: #116329; --bad: #a40e26; --focus: #0550ae;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0d1117; --card: #161b22; --text: #e6edf3; --soft: #9da7b3; --rim: #30363d;
    --one: #79c0ff; --two: #ffa657; --good: #7ee787; --bad: #ffa198; --focus: #79c0ff;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; }
header, main, #lost { max-width: 1200px; margin: 0 auto; padding: 0 16px; }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 16px; padding-top: 12px; }
h1 { font-size: 22px; margin: 0; }
h2 { font-size: 17px; margin: 0 0 8px; }
a { color: var(--one); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
main { display: grid; gap: 16px; padding-top: 12px; padding-bottom: 32px; }
section { background: var(--card); border: 1px solid var(--rim); border-radius: 8px; padding: 12px 16px; min-width: 0; }
#lost { color: var(--bad); font-weight: 600; }
#lost:empty { display: none; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 8px 16px; margin: 0 0 8px; }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
#history { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 12px 24px; }
#history h2 { grid-column: 1 / -1; margin: 0; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; }
.key { font-weight: 400; margin-left: 8px; color: var(--text); }
.key::before { content: ""; display: inline-block; width: 12px; height: 3px; margin-right: 4px; vertical-align: middle; background: var(--one); }
.key.two::before { background: var(--two); }
svg { display: block; width: 100%; height: 100px; }
.line { fill: none; stroke: var(--one); stroke-width: 2; vector-effect: non-scaling-stroke; }
.line.two { stroke: var(--two); stroke-dasharray: 5 3; }
.base { stroke: var(--rim); vector-effect: non-scaling-stroke; }
.axis { display: flex; justify-content: space-between; margin: 2px 0 0; font-size: 12px; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 4px 16px 4px 0; border-top: 1px solid var(--rim); vertical-align: top; white-space: nowrap; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; }
.reason { white-space: normal; display: inline-block; min-width: 220px; overflow-wrap: anywhere; }
.tag { border: 1px solid currentColor; border-radius: 10px; padding: 0 8px; font-size: 13px; }
.good { color: var(--good); }
.bad { color: var(--bad); }
.warn { margin: 0; padding-left: 20px; }
progress { width: 120px; vertical-align: middle; accent-color: var(--one); }
`;

/**
 * Puts what the server sends in the place of what is there, section by section: those that have not changed stay, and so does one that a person
 * has marked text in. Where the keyboard was, it is again.
 */
export const LIVE = `'use strict';
const main = document.getElementById('main');
const lost = document.getElementById('lost');
const events = new EventSource(main.dataset.events);
const holds = (section) => {
  const marked = document.getSelection();
  return marked !== null && !marked.isCollapsed && marked.containsNode(section, true);
};
const take = (markup) => {
  const next = new DOMParser().parseFromString(markup, 'text/html').body;
  const sections = [...next.children].map((section) => {
    const old = document.getElementById(section.id);
    if (old === null) return section;
    return old.outerHTML === section.outerHTML || holds(old) ? old : section;
  });
  const focused = document.activeElement;
  const label = main.contains(focused) ? focused.getAttribute('aria-label') : null;
  const left = new Map([...main.querySelectorAll('.scroll')].map((part) => [part.getAttribute('aria-label'), part.scrollLeft]));
  main.replaceChildren(...sections);
  for (const part of main.querySelectorAll('.scroll')) {
    const name = part.getAttribute('aria-label');
    part.scrollLeft = left.get(name) || 0;
    if (name === label) part.focus({ preventScroll: true });
  }
};
events.addEventListener('state', (event) => {
  lost.textContent = '';
  take(JSON.parse(event.data));
});
events.addEventListener('lost', () => { lost.textContent = lost.dataset.text; });
events.addEventListener('error', () => { lost.textContent = lost.dataset.text; });
`;
