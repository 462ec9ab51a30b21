// The server under test, the browser, and the list of checks.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";

const { CHROMIUM, FOLDER } = process.env;
/** The binary under test. */
export const { BINARY } = process.env;
const require = createRequire(path.join(FOLDER, "package.json"));
const { chromium } = require("playwright-core");
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

const checks = [];
/** Addresses of the servers under test; pages send requests to no other. */
const servers = [];

/** Adds a check; it gets a page of a browser tab of its own. Options are those of a context of the browser. */
export const check = (name, run, options = {}) => checks.push({ name, run, options });

/** Starts the binary on a free port, and waits until it takes requests. */
export async function startServer(...flags) {
  const server = await start(flags);
  servers.push(server.url);
  // The server listens before its models are loaded.
  while (!(await fetch(`${server.url}health/ready`)).ok) await new Promise((resolve) => setTimeout(resolve, 100));
  return server;
}

function start(flags) {
  const child = spawn(BINARY, ["--port", "0", ...flags], { stdio: ["ignore", "ignore", "pipe"] });
  const log = fs.createWriteStream(path.join(FOLDER, "server.log"), { flags: "a" });
  return new Promise((resolve, reject) => {
    let text = "";
    child.stderr.on("data", (part) => {
      log.write(part);
      text += part;
      const found = /listening on \S*?:(\d+)\s/.exec(text);
      if (found) resolve({ url: `http://127.0.0.1:${found[1]}/`, stop: () => child.kill("SIGTERM") });
    });
    child.on("exit", (code) => reject(new Error(`the server ended with ${code}: ${text}`)));
  });
}

/** Sends a message and waits for the end of the answer. */
export async function ask(page, text) {
  await page.fill("#input", text);
  await page.click("#send");
  await ended(page);
}

/** Waits until no answer is running. */
export async function ended(page) {
  await page.waitForSelector("#stop", { state: "hidden", timeout: 60_000 });
}

/** Server-sent events as a response. */
export const sse = (...chunks) => ({
  status: 200,
  contentType: "text/event-stream",
  body: [...chunks.map((chunk) => JSON.stringify(chunk)), "[DONE]"].map((data) => `data: ${data}\n\n`).join(""),
});

/** A chunk of a streamed answer. */
export const chunk = (delta, finish_reason = null) => ({ model: "m", choices: [{ index: 0, delta, finish_reason }] });

/** The response of an error. */
export const failure = (status, message, headers = {}) => ({
  status,
  headers,
  contentType: "application/json",
  body: JSON.stringify({ error: { message, type: "error", param: null, code: null } }),
});

/** Checks that axe-core finds no violation, and that nothing is wider than the window. */
export async function accessible(page) {
  const violations = await page.evaluate(
    async ([source, runOnly]) => {
      if (!window.axe) (0, eval)(source);
      const { violations } = await window.axe.run(document, { runOnly, resultTypes: ["violations"] });
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target}: ${node.failureSummary}`)}`);
    },
    [AXE, RULES],
  );
  assert.deepEqual(violations, []);
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(over, 0, "the page is wider than the window");
}

/** A screenshot of the whole page into the folder of artefacts, in a window as tall as the page. */
export async function shot(page, name) {
  const size = page.viewportSize();
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewportSize({ width: size.width, height: Math.max(size.height, height) });
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: path.join(FOLDER, `${name}.png`) });
  await page.setViewportSize(size);
}

/** Runs all checks and returns the number of those that failed. */
export async function run() {
  const server = await startServer();
  // A server without the lifecycle's routes refuses the page's question for them.
  const list = await fetch(`${server.url}v1/models/list`);
  const managed = list.ok && (await list.json()).data.some(({ settings }) => settings);
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  let failed = 0;
  for (const { name, run, options } of checks) {
    const begun = performance.now();
    const context = await browser.newContext(options);
    context.setDefaultTimeout(20_000);
    const page = await context.newPage();
    const errors = [];
    // The browser reports refused requests as errors; checks that provoke them say so.
    const expected = new Set(list.ok ? [] : ["404"]);
    page.expect = (status) => expected.add(String(status));
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => {
      const text = message.text();
      const refused = /the server responded with a status of (\d+)/.exec(text);
      if (["error", "warning"].includes(message.type()) && !(refused && expected.has(refused[1]))) errors.push(text);
    });
    page.on("request", (request) => {
      if (!servers.some((url) => request.url().startsWith(url))) errors.push(`a request to ${request.url()}`);
    });
    let result = "ok";
    try {
      await page.goto(server.url);
      await run(page, { ...server, managed });
      assert.deepEqual(errors, [], "errors on the console");
    } catch (error) {
      failed += 1;
      result = `FAILED: ${error.message}`;
      await page.screenshot({ path: path.join(FOLDER, `failed-${name.replaceAll(/\W+/g, "-")}.png`) }).catch(() => {});
    }
    await context.close();
    console.log(`${name} ... ${result} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
  }
  await browser.close();
  server.stop();
  console.log(`page checks: ${checks.length - failed} passed, ${failed} failed`);
  return failed;
}
