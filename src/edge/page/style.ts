/** The page's style, in the page itself: one request shows all of it. Its hash is what the page's policy lets in. */
export const STYLE = `
:root{color-scheme:light dark;--ink:#17212b;--soft:#526170;--line:#dce2e8;--paper:#fafbfc;--card:#fff;--mark:#0a5cb0;--code:#f0f3f6;--press:#0a5cb0;--on:#fff;--good:#176b3a;--fair:#8a5200;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e4eaf0;--soft:#9caab8;--line:#2b3641;--paper:#10161c;--card:#161e26;--mark:#7dbcff;--code:#1c262f;--press:#7dbcff;--on:#0b1218;--good:#6fd39a;--fair:#f0b45e;--bad:#ff9a90}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif}
.skip:not(:focus),.said{position:absolute;width:1px;height:1px;margin:0;overflow:hidden;clip-path:inset(50%);white-space:nowrap}.skip:focus{position:absolute;left:1rem;top:.5rem}
header,main,footer{max-width:54rem;margin:0 auto;padding:0 1.25rem}
header{display:flex;flex-wrap:wrap;gap:.4rem 1.5rem;align-items:baseline;padding-top:2.5rem}
header nav{margin-left:auto;font-size:.9rem}
h1{font-size:1.7rem;line-height:1.25;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.15rem;line-height:1.35;margin:2.6rem 0 .5rem}
h3{font-size:1rem;margin:1.4rem 0 .5rem;overflow-wrap:anywhere}
p{margin:.4rem 0 .8rem;overflow-wrap:break-word}
.lead,.note,footer{color:var(--soft)}.note{font-size:.92rem}
a{color:var(--mark);text-underline-offset:.15em}
:focus-visible{outline:3px solid var(--mark);outline-offset:2px;border-radius:.3rem}
code{font:.875em/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
p code,td code,summary code{background:var(--code);border-radius:.25rem;padding:.08em .3em;overflow-wrap:anywhere}
pre{margin:0;padding:.6rem .8rem;background:var(--code);border-radius:.45rem;overflow-x:auto;flex:1;min-width:0}
details pre{margin:.4rem 0 .8rem}
.line{display:flex;gap:.5rem;align-items:flex-start;margin:.3rem 0 .9rem}.line pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.breaks{overflow-wrap:anywhere}
label{display:block;color:var(--soft);margin-bottom:.4rem}
textarea{display:block;width:100%;min-height:4.6rem;resize:vertical;padding:.6rem .75rem;color:inherit;background:var(--card);border:1px solid var(--soft);border-radius:.45rem;font:.95rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
button,.button{display:inline-block;font:inherit;font-size:.92rem;padding:.45rem .9rem;border-radius:.45rem;border:1px solid var(--line);background:var(--card);color:var(--ink);cursor:pointer;text-decoration:none}
form button{margin-top:.6rem;background:var(--press);border-color:var(--press);color:var(--on);font-weight:600}
.copy{flex:none;min-width:4.6rem}[hidden]{display:none}
.answer{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.2rem 1rem .4rem;margin:1rem 0}
.problem{border-left:4px solid var(--fair);padding:.2rem 0 .2rem .9rem;margin:1rem 0}
dl{margin:.4rem 0}dt{font-size:.85rem;color:var(--soft)}dd{margin:0}
table{border-collapse:collapse;width:100%;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
th,td{text-align:left;padding:.5rem .9rem;border-top:1px solid var(--line);vertical-align:top;font-weight:400}
thead th{border-top:0;font-size:.85rem;font-weight:600;color:var(--soft)}
tbody th,td{overflow-wrap:anywhere}
.state{white-space:nowrap;overflow-wrap:normal}.state::before{content:"";display:inline-block;width:.55rem;height:.55rem;border-radius:50%;margin-right:.45rem;background:var(--line)}
.well::before{background:var(--good)}.partly::before{background:var(--fair)}.down::before{background:var(--bad)}
.well{color:var(--good)}.partly{color:var(--fair)}.down{color:var(--bad)}.unknown{color:var(--soft)}
details{border-top:1px solid var(--line)}details:last-of-type{border-bottom:1px solid var(--line)}
summary{padding:.55rem 0;cursor:pointer;overflow-wrap:anywhere}
footer{margin-top:3rem;padding-top:1rem;padding-bottom:2rem;font-size:.88rem}
@media (max-width:34rem){header{padding-top:1.4rem}.table thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}.table,.table tbody{display:block}.table tr{display:grid;grid-template-columns:1fr auto;gap:.15rem 1rem;border-top:1px solid var(--line);padding:.6rem .9rem}.table tbody tr:first-child{border-top:0}.table th,.table td{border:0;padding:0}.table td.wide{grid-area:2/1/3/3}.table th.wide{grid-column:1/3}.copy{min-width:3.6rem;padding:.45rem .5rem}}
`;

/** What JavaScript adds: buttons that copy, and Enter that sends the form. The page says the same without it. */
export const SCRIPT = `'use strict';
// What is read aloud begins with what is seen.
const name = (button, word) => {
  button.setAttribute('aria-label', word + button.getAttribute('aria-label').slice(button.textContent.length));
  button.textContent = word;
};
for (const button of document.querySelectorAll('button.copy')) {
  const code = button.parentElement.querySelector('code');
  const word = button.textContent;
  button.hidden = false;
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // Pages without TLS have no clipboard: the text is selected, and copied as far as the browser does that.
      getSelection().selectAllChildren(code);
      document.execCommand('copy');
    }
    name(button, button.dataset.copied);
    document.getElementById('said').textContent = button.dataset.copied;
    setTimeout(() => {
      name(button, word);
      document.getElementById('said').textContent = '';
    }, 2000);
  });
}
const box = document.querySelector('textarea');
if (box !== null) {
  box.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    box.form.requestSubmit();
  });
}
`;
