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
  };
}

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
  await tab.evaluate(() => window.MathJax?.startup?.promise);
  const ready = () => document.querySelectorAll("article .toggle").length === document.querySelectorAll("article button.toggle-button").length;
  await tab.waitForFunction(ready);
  Object.assign(found, await tab.evaluate(inspect));
  await tab.evaluate(unfold);
  await tab.waitForTimeout(300);
  found.shut = await tab.evaluate(stillShut);
  await tab.evaluate(axe);
  found.axeLight = await violations(tab, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"] });
  await tab.evaluate(() => Object.assign(document.documentElement.dataset, { theme: "dark", mode: "dark" }));
  found.axeDark = await violations(tab, { runOnly: ["color-contrast"] });
  await tab.setViewportSize({ width: 390, height: 844 });
  await tab.waitForTimeout(100);
  const narrow = await tab.evaluate(inspect);
  Object.assign(found, { overflow: narrow.overflow, cut: narrow.cut });
  await context.close();
  return found;
}

// The reader's choice of dark is remembered, and the system's is followed.
async function theme(browser, page) {
  const context = await browser.newContext({ colorScheme: "dark" });
  const tab = await context.newPage();
  const now = () => tab.evaluate(() => document.documentElement.dataset.theme);
  await tab.goto(base + page);
  const followed = await now();
  await tab.evaluate(() => { localStorage.setItem("mode", "light"); localStorage.setItem("theme", "light"); });
  await tab.goto(base + page);
  const remembered = await now();
  await context.close();
  return { followed, remembered };
}

const browser = await chromium.launch({ executablePath, args });
const visits = [];
for (const page of pages) visits.push(await visit(browser, page));
console.log(JSON.stringify({ visits, theme: await theme(browser, pages[0]) }));
await browser.close();
