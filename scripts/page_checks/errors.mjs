// Refused requests, keys, and connections that end.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { BINARY, ask, check, chunk, ended, failure, sse, startServer } from "./harness.mjs";

check("a wrong key is said, another one is asked for and kept in the tab alone", async (page) => {
  page.expect(401);
  await page.route("**/v1/**", (route) => {
    const sent = route.request().headers().authorization;
    if (sent === "Bearer right") return route.continue();
    return route.fulfill(failure(401, sent ? "the API key is not known" : "an API key is needed"));
  });
  await page.reload();
  const reason = page.locator("#key-reason");
  await reason.filter({ hasText: "asks for an API key" }).waitFor();
  await page.fill("#key-input", "wrong");
  await page.keyboard.press("Enter");
  await reason.filter({ hasText: "does not accept" }).waitFor();
  await page.keyboard.press("Escape");
  assert.match(await page.textContent("#chat-notice"), /needs a valid API key/);
  await page.click("#key-open");
  await page.fill("#key-input", "right");
  await page.click("button:has-text('Use key')");
  await page.waitForFunction(() => document.querySelector("#model").value !== "");
  await page.fill("#set-max_tokens", "4");
  await ask(page, "Hello");
  assert.match(await page.textContent(".message.assistant .actions"), /4 tokens/);
  assert.equal(await page.inputValue("#key-input"), "");
  const kept = await page.evaluate(() => [localStorage.length, document.cookie, sessionStorage.getItem("exsa.key")]);
  assert.deepEqual(kept, [0, "", "right"]);
  await page.click("#key-open");
  await page.click("#key-forget");
  assert.equal(await page.evaluate(() => sessionStorage.getItem("exsa.key")), null);
});

check("keys and scopes of a server with authentication", async (page) => {
  page.expect(401).add("403");
  const data = fs.mkdtempSync(path.join(os.tmpdir(), "exsa-page-"));
  const server = await startServer("--data", data);
  try {
    const flags = ["key", "new", "--data", data, "--name", "page", "--scope", "infer", "--scope", "metrics"];
    const key = execFileSync(BINARY, flags, { encoding: "utf8" }).trim();
    await page.goto(server.url);
    const reason = page.locator("#key-reason");
    await reason.filter({ hasText: "asks for an API key" }).waitFor();
    await page.fill("#key-input", `${key.slice(0, -4)}aaaa`);
    await page.keyboard.press("Enter");
    await reason.filter({ hasText: "does not accept" }).waitFor();
    await page.fill("#key-input", key);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#model").value !== "");
    await page.fill("#set-max_tokens", "4");
    await ask(page, "Hello");
    assert.match(await page.textContent(".message.assistant .actions"), /4 tokens/);
    await page.click("nav [data-view=live]");
    await page.waitForSelector("#live-throughput .tile");
    await page.locator("#live-models", { hasText: "not allowed with your API key" }).waitFor();
    assert.match(await page.textContent("#live-models"), /'models'/);
  } finally {
    server.stop();
    fs.rmSync(data, { recursive: true, force: true });
  }
});

check("too many requests: the wait is said, and another try is offered", async (page) => {
  page.expect(429);
  let tries = 0;
  await page.route("**/v1/chat/completions", (route) => {
    tries += 1;
    if (tries > 1) return route.fulfill(sse(chunk({ content: "Done." }, "stop")));
    return route.fulfill(failure(429, "1024 requests wait", { "retry-after": "12" }));
  });
  await ask(page, "Hello");
  assert.match(await page.textContent("#chat-notice"), /Too many requests.*1024 requests wait\..*Try again in 12 s\./);
  assert.equal(await page.locator(".message").count(), 1);
  await page.click("button:has-text('Try again')");
  await page.waitForSelector(".message.assistant .markdown:has-text('Done.')");
  await ended(page);
  assert.equal(await page.textContent("#chat-notice"), "");
});

check("an error of the server is said in its words", async (page) => {
  page.expect(400);
  await page.fill("#set-max_tokens", "5");
  await page.fill("#input", "word ".repeat(5000));
  await page.click("#send");
  await ended(page);
  assert.match(await page.textContent("#chat-notice"), /prompt|context|tokens/i);
});

check("an error within a stream keeps the text so far", async (page) => {
  const error = { error: { message: "the backend failed", type: "server_error", param: null, code: "failed" } };
  await page.route("**/v1/chat/completions", (route) => route.fulfill(sse(chunk({ content: "Half an" }), error)));
  await ask(page, "Hello");
  assert.match(await page.textContent("#chat-notice"), /The backend failed\./);
  assert.equal(await page.textContent(".message.assistant .markdown"), "Half an");
  assert.match(await page.textContent(".message.assistant .actions"), /not complete/);
});

check("a stream that ends early is no whole answer", async (page) => {
  const body = `data: ${JSON.stringify(chunk({ content: "Half" }))}\n\n`;
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ status: 200, contentType: "text/event-stream", body }),
  );
  await ask(page, "Hello");
  assert.match(await page.textContent("#chat-notice"), /ended before the answer was complete/);
});
