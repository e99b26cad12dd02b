// node lab.mjs CHROMIUM JUPYTER FOLDER [--trust] [--dark] [--shots DIR] NOTEBOOK...
// Opens notebooks in a JupyterLab of its own (random token, own configuration, nothing of the user's) and prints JSON:
// what a reader sees there that he should not.
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const words = process.argv.slice(2);
const flag = (name) => { const k = words.indexOf(name); return k >= 0 && words.splice(k, 1).length > 0; };
const option = (name) => { const k = words.indexOf(name); return k < 0 ? null : words.splice(k, 2)[1]; };
const [trust, dark, shots] = [flag("--trust"), flag("--dark"), option("--shots")];
const [executablePath, jupyter, folder, ...notebooks] = words;

// A home of its own, removed at the end.
const home = fs.mkdtempSync(path.join(os.tmpdir(), "lab-"));
const setting = (name, value) => {
  const file = path.join(home, "settings/@jupyterlab", name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, JSON.stringify(value));
};
setting("notebook-extension/tracker.jupyterlab-settings", { windowingMode: "none" }); // all cells are in the page
setting("apputils-extension/notification.jupyterlab-settings", { fetchNews: "false", checkForUpdates: false });
if (dark) setting("apputils-extension/themes.jupyterlab-settings", { theme: "JupyterLab Dark" });
const token = randomBytes(16).toString("hex");
const env = { ...process.env, HOME: home, JUPYTER_CONFIG_DIR: `${home}/config`, JUPYTER_DATA_DIR: `${home}/data`,
  JUPYTER_RUNTIME_DIR: `${home}/run`, JUPYTERLAB_SETTINGS_DIR: `${home}/settings`,
  JUPYTERLAB_WORKSPACES_DIR: `${home}/workspaces`, IPYTHONDIR: `${home}/ipython`, OMP_NUM_THREADS: "1" };
if (trust) execFileSync(jupyter, ["trust", ...notebooks.map((n) => path.join(folder, n))], { env });

const server = spawn(jupyter, ["lab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0",
  `--ServerApp.root_dir=${path.resolve(folder)}`, `--IdentityProvider.token=${token}`,
  "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"], { env });
let log = "";
server.stderr.on("data", (d) => { log += d; });
process.on("exit", () => { server.kill("SIGKILL"); fs.rmSync(home, { recursive: true, force: true }); });

async function address() {
  for (let k = 0; k < 720; k++) { // three minutes, on a busy machine
    const file = fs.existsSync(`${home}/run`) && fs.readdirSync(`${home}/run`).find((f) => /^jpserver-\d+\.json$/.test(f));
    if (file) return JSON.parse(fs.readFileSync(`${home}/run/${file}`, "utf8")).url;
    if (server.exitCode !== null) break;
    await new Promise((done) => setTimeout(done, 250));
  }
  throw new Error(`JupyterLab did not start:\n${log.slice(-2000)}`);
}

// Runs in the page.
function inspect() {
  const panel = document.querySelector(".jp-NotebookPanel:not(.lm-mod-hidden)");
  const all = (query) => [...panel.querySelectorAll(query)];
  const brief = (e) => (e.textContent.trim() || e.outerHTML).slice(0, 90);
  const markdown = all(".jp-MarkdownOutput, .jp-RenderedMarkdown");
  const prose = [...markdown, ...all(".jp-RenderedHTMLCommon")].map((e) => {
    const copy = e.cloneNode(true);
    copy.querySelectorAll("code, pre, mjx-container, style, script").forEach((x) => x.remove());
    return copy.textContent;
  }).join("\n");
  const some = (pattern) => (prose.match(pattern) ?? []).slice(0, 5);
  const drawn = (e) => e.getClientRects().length > 0 && (e.tagName !== "IMG" || (e.complete && e.naturalWidth > 0));
  const figures = all(".jp-OutputArea-output img, .jp-OutputArea-output .jp-RenderedSVG svg").filter((e) => !e.closest(".frames"));
  return {
    cells: all(".jp-Cell").length,
    formulas: all("mjx-container").length,
    mathErrors: all("mjx-mtext[style*='color: red'], mjx-merror, [data-mjx-error]").map((e) => brief(e.closest("mjx-container") ?? e)),
    rawMath: some(/[^\n]{0,30}(\$[^$\n]{1,60}\$|\\\(|\\(?:frac|mathbb|lVert|norm|begin|tag)\b)[^\n]{0,20}/g),
    rawRoles: some(/\{(glue|numref|eq|ref|cite|prf|doc|py|runtime|ledger|chapter)[:}][^\n]{0,40}|:::+[^\n]{0,40}|^\([\w:-]+\)=/gm),
    comments: some(/<!--[^\n]{0,40}/g),
    onlyWords: all(".jp-OutputArea-output").map(brief).filter((t) => t.startsWith("<Figure size")),
    hidden: figures.filter((e) => !drawn(e)).map((e) => (e.src ?? e.outerHTML).slice(0, 60)),
    errors: all("[data-mime-type='application/vnd.jupyter.stderr'], [data-mime-type='application/vnd.jupyter.error']").map(brief),
    figures: figures.length,
    frames: all("fieldset.frames").length,
    captions: markdown.flatMap((e) => e.textContent.match(/^\s*Figure \d+\.\d+\./m) ?? []).length,
    folds: all("details.checks > summary").map(brief).length,
  };
}

const shownFrames = () => [...document.querySelector(".frames").querySelectorAll(".view")]
  .flatMap((e, k) => (e.getClientRects().length && [...e.querySelectorAll("img")].every((i) => i.naturalWidth)) ? [k] : []);

// What is typed reaches the buttons: which frame is seen at first, after a click, after an arrow key.
async function move(tab) {
  const choice = tab.locator(".frames").first().locator("input").nth(1);
  const seen = [await tab.evaluate(shownFrames)];
  if (!(await choice.isVisible())) return seen;
  await choice.click();
  seen.push(await tab.evaluate(shownFrames));
  await tab.keyboard.press("ArrowRight");
  seen.push(await tab.evaluate(shownFrames));
  return seen;
}

async function shoot(tab, name) {
  const height = await tab.evaluate(() => Math.max(...[...document.querySelectorAll(".jp-NotebookPanel *")].map((e) => e.scrollHeight)));
  await tab.setViewportSize({ width: 1280, height: Math.min(height + 140, 12000) });
  await tab.waitForTimeout(500);
  fs.mkdirSync(shots, { recursive: true });
  await tab.screenshot({ path: path.join(shots, `${name}${trust ? "-trusted" : ""}${dark ? "-dark" : ""}.png`) });
}

const found = [];
try {
  const base = await address();
  const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];
  const browser = await chromium.launch({ executablePath, args });
  const context = await browser.newContext({ viewport: { width: 1280, height: 1000 } });
  for (const notebook of notebooks) {
    const tab = await context.newPage();
    const report = { notebook, foreign: [] };
    tab.on("request", (r) => /^https?:/.test(r.url()) && !r.url().startsWith(new URL(base).origin) && report.foreign.push(r.url()));
    await tab.goto(`${base}lab/workspaces/w${found.length}/tree/${notebook}?token=${token}`);
    await tab.waitForSelector(".jp-NotebookPanel .jp-Cell", { timeout: 90000 });
    let size = 0; // settled: the same size four times in a row
    for (let k = 0, same = 0; k < 100 && same < 4; k++) {
      await tab.waitForTimeout(400);
      const now = await tab.evaluate(() => document.querySelector(".jp-NotebookPanel").innerHTML.length);
      same = now === size ? same + 1 : 0;
      size = now;
    }
    Object.assign(report, await tab.evaluate(inspect));
    report.theme = await tab.evaluate(() => document.body.dataset.jpThemeLight);
    if (report.frames) report.moves = await move(tab);
    if (shots) await shoot(tab, path.basename(notebook, ".ipynb"));
    found.push(report);
    await tab.close();
  }
  await browser.close();
} finally {
  server.kill("SIGTERM");
}
console.log(JSON.stringify(found));
process.exit(0);
