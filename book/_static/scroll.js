// A formula, a table or a block of code that is wider than the page scrolls by itself: it shows on which side there is more,
// and the keyboard reaches it. A short formula and the comma after it stay on one line, and
// a printed table keeps its columns. Nothing else needs a script.
(() => {
  const WIDE = "mjx-container[display='true'], table, .cell_output pre, .highlight pre";

  // The element that scrolls: a table gets a box of its own.
  const scroller = (element) => {
    if (element.tagName !== "TABLE") return element;
    if (element.parentElement.classList.contains("table-box")) return element.parentElement;
    const box = document.createElement("div");
    box.className = "table-box";
    element.replaceWith(box);
    box.append(element);
    return box;
  };

  const edges = (box) => {
    const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("more-left", box.scrollLeft > 1);
    box.classList.toggle("more-right", rest > 1);
  };

  const look = (element) => {
    if (!element.getClientRects().length) return;
    const box = scroller(element);
    const wide = box.scrollWidth > box.clientWidth + 1;
    if (wide && !box.classList.contains("scrolls")) {
      box.classList.add("scrolls");
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", element.tagName === "TABLE" ? "table, scrolls sideways" : element.tagName === "PRE" ? "code, scrolls sideways" : "formula, scrolls sideways");
      box.addEventListener("scroll", () => edges(box), { passive: true });
    } else if (!wide && box.classList.contains("scrolls")) {
      box.classList.remove("scrolls", "more-left", "more-right");
      ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
    }
    if (wide) edges(box);
  };

  const SHORT = 16; // letters; a longer formula may break on a phone
  const join = (formula) => {
    const rest = formula.nextSibling;
    const mark = rest?.nodeType === Node.TEXT_NODE && /^[,.;:!?)\]’”]+/.exec(rest.data)?.[0];
    if (!mark || formula.textContent.length > SHORT) return;
    const whole = document.createElement("span");
    whole.className = "whole";
    formula.replaceWith(whole);
    rest.data = rest.data.slice(mark.length);
    whole.append(formula, mark);
  };

  // Two lines with a gap inside are a table: it scrolls; other output wraps.
  const columns = (output) => output.classList.toggle("columns", output.textContent.match(/^.*\S {2,}\S/gm)?.length > 1);

  const all = () => document.querySelectorAll("article").forEach((page) => page.querySelectorAll(WIDE).forEach(look));
  const begin = () => {
    document.querySelectorAll("article span.math").forEach(join);
    document.querySelectorAll("article .cell_output pre").forEach(columns);
    all();
    document.addEventListener("toggle", all, true);
    let wait;
    window.addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(all, 60); });
  };
  const formulas = () => window.MathJax?.startup?.promise ?? Promise.resolve();
  window.addEventListener("load", () => formulas().then(begin));
})();
