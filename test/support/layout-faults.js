// Evaluated in a page by test/support/browser.ts: that it can be scrolled sideways, and elements that are cut off or lie beyond the window without a
// way to scroll to them. What scrolls on purpose (a long line of code, a table) is marked `tabindex`, so that the keyboard reaches it too.
(() => {
  const faults = [];
  const root = document.documentElement;
  const shown = (element) => element.outerHTML.slice(0, 120);
  // They are told what is cut off on purpose.
  const isForScreenReaders = (element) =>
    element !== null && (getComputedStyle(element).clipPath !== 'none' || isForScreenReaders(element.parentElement));
  if (root.scrollWidth > root.clientWidth) faults.push(`the page is ${root.scrollWidth} wide in ${root.clientWidth}`);
  for (const element of document.body.querySelectorAll('*')) {
    const { overflowX } = getComputedStyle(element);
    if (element.clientWidth === 0 || isForScreenReaders(element)) continue;
    const overflows = element.scrollWidth > element.clientWidth + 1;
    if (overflows && (overflowX === 'hidden' || overflowX === 'clip')) faults.push(`cut off: ${shown(element)}`);
    if (overflows && (overflowX === 'auto' || overflowX === 'scroll') && element.tabIndex < 0)
      faults.push(`scrolls, but not by keyboard: ${shown(element)}`);
    const { left, right } = element.getBoundingClientRect();
    const scrolls = element.parentElement.closest('[tabindex]') !== null;
    if (!scrolls && (left < -1 || right > root.clientWidth + 1)) faults.push(`beyond the window: ${shown(element)}`);
  }
  return faults;
})();
