// node visit.mjs CHROMIUM BASE PAGE...   prints JSON: what a reader's browser found on each page
import fs from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [, , executablePath, base, ...pages] = process.argv;
const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

// Runs in the page, once MathJax has finished.
function inspect() {
  const SCROLLERS = "article :is(mjx-container, div.math, .table-box, .pst-scrollable-table-container, table, pre, div.highlight, figure, fieldset, .cell_output)";
  const clone = document.querySelector("article, main").cloneNode(true);
  clone.querySelectorAll("pre, code, script, style, mjx-container").forEach((e) => e.remove());
  const text = clone.textContent;
  const seen = (e) => e.offsetParent !== null;
  return {
    rawMath: (text.match(/[^\n]{0,40}(\$[^$\n]{1,80}\$|\\\(|\\\[|\\(frac|mathbb|lVert|norm)\b)[^\n]{0,20}/g) ?? []).slice(0, 3),
    rawRoles: (text.match(/\{(glue|numref|eq|ref|cite|prf|doc|py|runtime)[:}][^\n]{0,40}/g) ?? []).slice(0, 3),
    formulas: document.querySelectorAll("mjx-container").length,
    sources: document.querySelectorAll("span.math, div.math").length,
    mathErrors: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map((e) => e.textContent.slice(0, 80)),
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    // Wider than the phone and not inside something that scrolls: cut off for the reader.
    cut: [...document.querySelectorAll("article table, article pre, article img, article mjx-container, article code, article dt, article a")].filter((e) => {
      if (!seen(e) || e.getBoundingClientRect().right <= window.innerWidth + 1) return false;
      for (let p = e; p && p !== document.body; p = p.parentElement)
        if (["auto", "scroll"].includes(getComputedStyle(p).overflowX)) return false;
      return true;
    }).map((e) => e.outerHTML.slice(0, 100)),
    // Scrolls sideways, and no key reaches it.
    unreachable: [...document.querySelectorAll(SCROLLERS)].filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
      && ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0).map((e) => e.outerHTML.slice(0, 100)),
    hasFrames: document.querySelector("article .frames") !== null,
    ligatures: [...document.querySelectorAll("article pre, article code")].some((e) => getComputedStyle(e).fontVariantLigatures !== "none"),
  };
}

// The TeX of the displays outside folds that are wider than the page, by more than rounding.
const wideDisplays = () => [...(window.MathJax?.startup?.document?.math ?? [])]
  .filter(({ display, typesetRoot: e }) => display && e && e.scrollWidth > e.clientWidth + 4 && !e.closest("details"))
  .map((item) => item.math.replace(/\s+/g, " ").trim());

// Numbers of formulas that are cut off, or stand on their formula.
const hiddenNumbers = () => [...document.querySelectorAll("article mjx-labels mjx-mtext")].filter((number) => {
  const [n, box] = [number, number.closest("mjx-container")].map((e) => e.getBoundingClientRect());
  if (!n.width) return false;
  const formula = number.closest("mjx-mtable").querySelector(":scope > mjx-table").getBoundingClientRect();
  const on = n.left < formula.right - 1 && n.right > formula.left && n.top < formula.bottom - 1 && n.bottom > formula.top + 1;
  return on || n.bottom > box.bottom + 1 || n.top < box.top - 1 || n.right > box.right + 1;
}).map((e) => e.textContent);

// Commas that begin a line because the short formula before them ended one.
const strays = () => [...document.querySelectorAll("article span.math")].filter((e) => e.textContent.length <= 16).map((e) => {
  const mark = e.nextSibling;
  const last = [...e.querySelectorAll("mjx-c, mjx-utext")].pop();
  if (mark?.nodeType !== Node.TEXT_NODE || !/^[,.;:!?)\]’”]/.test(mark.data) || !last?.getClientRects().length) return "";
  const range = document.createRange();
  range.setStart(mark, 0);
  range.setEnd(mark, 1);
  return range.getBoundingClientRect().left < last.getBoundingClientRect().left - 20 ? e.parentElement.textContent.slice(0, 60) : "";
}).filter(Boolean);

const panels = () => [...document.querySelectorAll("article .tag_panels .cell_output")].map((cell) =>
  [...cell.querySelectorAll("img")].map((e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.width].map(Math.round); }));

// How a picture sits on the page: on its paper, by day and by night; a photograph as it is.
const paper = () => [...document.querySelectorAll("article .cell_output img")].map((e) => {
  const style = getComputedStyle(e);
  return [Boolean(e.closest(".tag_photo")), style.mixBlendMode, style.filter.includes("invert")].join(" ");
});

// Proofs, solutions and entries of the ledger that are folded on the screen and would be missing on paper.
const unprinted = () => [...document.querySelectorAll("article details:not(.hide)")]
  .filter((d) => [...d.children].some((e) => e.tagName !== "SUMMARY" && !e.checkVisibility())).map((d) => d.textContent.trim().slice(0, 60));

// Opens everything that folds.
function unfold() {
  const folds = [...document.querySelectorAll("article details")];
  folds.forEach((d) => { if (!d.open) d.querySelector("summary").click(); });
  document.querySelectorAll("article .toggle-hidden > .admonition-title button.toggle-button").forEach((b) => b.click());
}

function stillShut() {
  const shut = document.querySelectorAll("article details:not([open]), article .toggle-hidden");
  return [...shut].map((e) => e.textContent.trim().slice(0, 60));
}

const violations = async (tab, options) => {
  const result = await tab.evaluate((o) => window.axe.run(document, o), options);
  const words = (n) => `${n.target.join(" ")} ${(n.any[0]?.message ?? "").slice(0, 140)}`;
  return result.violations.filter((v) => ["serious", "critical"].includes(v.impact))
    .map((v) => `${v.id} x${v.nodes.length}: ${v.nodes.slice(0, 2).map(words).join(" | ")}`);
};

const theme = (mode) => Object.assign(document.documentElement.dataset, { theme: mode, mode });

// One load: light and wide, then dark, then narrow.
async function visit(browser, page) {
  const context = await browser.newContext({ colorScheme: "light", viewport: { width: 1280, height: 900 } });
  const tab = await context.newPage();
  await tab.addInitScript(() => { localStorage.setItem("mode", "light"); localStorage.setItem("theme", "light"); });
  const found = { page, console: [], foreign: [], failed: [] };
  tab.on("console", (m) => m.type() === "error" && found.console.push(m.text().slice(0, 200)));
  tab.on("pageerror", (e) => found.console.push(String(e).slice(0, 200)));
  tab.on("request", (r) => /^https?:/.test(r.url()) && !r.url().startsWith(base) && found.foreign.push(r.url()));
  tab.on("response", (r) => r.status() >= 400 && found.failed.push(`${r.status()} ${r.url()}`));
  await tab.goto(base + page, { waitUntil: "load" });
  await tab.addStyleTag({ content: "*, *::before, *::after { transition: none !important }" }); // colours are what they will be
  await tab.evaluate(() => window.MathJax?.startup?.promise);
  const ready = () => document.querySelectorAll("article .toggle").length === document.querySelectorAll("article button.toggle-button").length;
  await tab.waitForFunction(ready);
  Object.assign(found, await tab.evaluate(inspect));
  found.panelsWide = await tab.evaluate(panels);
  found.paperLight = await tab.evaluate(paper);
  await tab.emulateMedia({ media: "print" });
  found.unprinted = await tab.evaluate(unprinted);
  await tab.emulateMedia({ media: "screen" });
  await tab.evaluate(unfold);
  await tab.waitForTimeout(300);
  found.shut = await tab.evaluate(stillShut);
  await tab.evaluate(theme, "dark");
  found.paperDark = await tab.evaluate(paper);
  await tab.setViewportSize({ width: 390, height: 844 });
  await tab.waitForTimeout(250);
  const narrow = await tab.evaluate(inspect);
  Object.assign(found, { overflow: narrow.overflow, cut: narrow.cut, unreachable: narrow.unreachable });
  found.wide = await tab.evaluate(wideDisplays);
  found.strays = await tab.evaluate(strays);
  found.hiddenNumbers = await tab.evaluate(hiddenNumbers);
  found.panelsPhone = await tab.evaluate(panels);
  // The letters of formulas have the colour of the text around them; without them axe needs a third of the time.
  await tab.evaluate(() => document.querySelectorAll("mjx-container").forEach((e) => e.replaceChildren("x")));
  await tab.setViewportSize({ width: 1280, height: 900 });
  await tab.evaluate(axe);
  found.axeDark = await violations(tab, { runOnly: ["color-contrast"] });
  await tab.evaluate(theme, "light");
  found.axeLight = await violations(tab, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"] });
  await context.close();
  return found;
}

// The reader's choice of dark is remembered, and the system's is followed.
async function remembered(browser, page) {
  const context = await browser.newContext({ colorScheme: "dark" });
  const tab = await context.newPage();
  const now = () => tab.evaluate(() => document.documentElement.dataset.theme);
  await tab.goto(base + page);
  const followed = await now();
  await tab.evaluate(() => { localStorage.setItem("mode", "light"); localStorage.setItem("theme", "light"); });
  await tab.goto(base + page);
  const kept = await now();
  await context.close();
  return { followed, remembered: kept };
}

// The frame that is seen, before and after two arrow keys; with scripts and without.
async function frames(browser, page) {
  const seen = {};
  for (const javaScriptEnabled of [true, false]) {
    const context = await browser.newContext({ javaScriptEnabled, viewport: { width: 1280, height: 900 } });
    const tab = await context.newPage();
    await tab.goto(base + page, { waitUntil: "load" });
    const row = tab.locator(".frames").first();
    const shown = async () => {
      const views = await row.locator(".view").all();
      return (await Promise.all(views.map((v) => v.isVisible()))).flatMap((visible, k) => (visible ? [k] : []));
    };
    await row.locator("input:checked").focus();
    const before = await shown();
    await tab.keyboard.press("ArrowRight");
    await tab.keyboard.press("ArrowRight");
    seen[javaScriptEnabled ? "withScripts" : "withoutScripts"] = [before, await shown(), (await row.locator(".view").count())];
    await context.close();
  }
  return seen;
}

const browser = await chromium.launch({ executablePath, args });
const visits = [];
for (const page of pages) {
  const found = await visit(browser, page);
  if (found.hasFrames) found.frames = await frames(browser, page);
  visits.push(found);
}
console.log(JSON.stringify({ visits, theme: await remembered(browser, pages[0]) }));
await browser.close();
