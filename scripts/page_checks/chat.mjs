// Conversations with the built-in model, and answers with reasoning and tool calls.

import assert from "node:assert/strict";
import { ask, check, chunk, ended, shot, sse } from "./harness.mjs";

const body = (request) => JSON.parse(request.postData());

/** The body of the next request for an answer. */
function nextBody(page) {
  const sent = page.waitForRequest("**/v1/chat/completions").then(body);
  // A check that fails before it waits for the request has told why.
  sent.catch(() => {});
  return sent;
}

check("a message is sent, and its answer streams", async (page) => {
  await page.fill("#set-max_tokens", "60");
  await page.fill("#input", "Tell me a story about a cat.");
  await page.keyboard.press("Enter");
  const lengths = new Set();
  const text = () => page.textContent(".message.assistant .markdown");
  while (await page.isVisible("#stop")) {
    if ((await page.locator(".message.assistant").count()) > 0) lengths.add((await text()).length);
    await page.waitForTimeout(20);
  }
  assert.ok(lengths.size > 2, `the answer came in ${lengths.size} parts`);
  assert.ok((await text()).length > 20);
  assert.match(await page.textContent(".message.assistant .actions"), /60 tokens · [\d.]+ tokens\/s/);
  assert.equal(await page.inputValue("#input"), "");
  assert.match(await page.textContent("#announcer"), /60 tokens/, "a screen reader hears of the end");
});

check("stop ends the answer, and its request at the server", async (page, server) => {
  await page.fill("#set-max_tokens", "480");
  await page.fill("#input", "Tell me a very long story.");
  await page.click("#send");
  await page.waitForFunction(() => document.querySelector(".message.assistant .markdown")?.textContent.length > 10);
  await page.focus("#stop");
  await page.keyboard.press("Enter");
  await ended(page);
  assert.match(await page.textContent(".message.assistant .actions"), /stopped/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "input", "the focus goes back to the message");
  for (let tries = 0; ; tries += 1) {
    const stats = await (await fetch(`${server.url}v1/stats`)).json();
    if (stats.running === 0) break;
    assert.ok(tries < 100, "the request still runs");
    await page.waitForTimeout(50);
  }
});

check("settings reach the request, and stay after a reload", async (page) => {
  const values = { temperature: 0.3, top_p: 0.7, top_k: 12, min_p: 0.1, seed: 42, max_tokens: 8 };
  for (const [name, value] of Object.entries(values)) await page.fill(`#set-${name}`, String(value));
  await page.fill("#set-system", "Be brief.");
  await page.reload();
  const sent = nextBody(page);
  await page.fill("#input", "Hello");
  await page.click("#send");
  const { messages, model, stream, ...rest } = await sent;
  assert.deepEqual(messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }]);
  assert.ok(stream && model.length > 0);
  for (const [name, value] of Object.entries(values)) assert.equal(rest[name], value, name);
  await ended(page);
  assert.match(await page.textContent(".message.assistant .actions"), /8 tokens/);
});

check("an invalid setting sends nothing", async (page) => {
  await page.fill("#set-top_p", "3");
  await page.fill("#input", "Hello");
  await page.click("#send");
  assert.equal(await page.locator(".message").count(), 0);
  assert.equal(await page.evaluate(() => document.activeElement.id), "set-top_p");
  await page.fill("#set-top_p", "");
  await page.click("summary:has-text('Tools')");
  await page.fill("#set-tools", "{");
  assert.match(await page.textContent("#settings-error"), /Tools/);
});

check("regenerate asks for the last answer again", async (page) => {
  await page.fill("#set-max_tokens", "12");
  await ask(page, "One");
  await ask(page, "Two");
  const sent = nextBody(page);
  await page.click("button:has-text('Regenerate'):visible");
  const { messages } = await sent;
  assert.deepEqual(messages.map(({ role }) => role), ["user", "assistant", "user"]);
  await ended(page);
  assert.equal(await page.locator(".message").count(), 4);
  assert.equal(await page.locator("button:has-text('Regenerate'):visible").count(), 1);
});

check("the last message can be changed", async (page) => {
  await page.fill("#set-max_tokens", "8");
  await ask(page, "One");
  await ask(page, "Two");
  await page.click("button:has-text('Edit')");
  assert.equal(await page.evaluate(() => document.activeElement.id), "edit-input");
  await page.keyboard.press("Escape");
  assert.equal(await page.textContent(".message.user:nth-last-child(2) .text"), "Two");
  await page.click("button:has-text('Edit')");
  await page.fill("#edit-input", "Three");
  const sent = nextBody(page);
  await page.keyboard.press("Enter");
  const { messages } = await sent;
  assert.deepEqual(messages.filter(({ role }) => role === "user").map(({ content }) => content), ["One", "Three"]);
  await ended(page);
});

check("an answer is copied as Markdown", async (page) => {
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.route("**/v1/chat/completions", (route) => route.fulfill(sse(chunk({ content: "It is **bold**." }, "stop"))));
  await ask(page, "Hello");
  await page.click(".message.assistant button:has-text('Copy')");
  await page.waitForSelector("button:has-text('Copied')");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "It is **bold**.");
});

check("the model can be switched", async (page) => {
  const data = ["one", "group/two"].map((id) => ({ id, object: "model" }));
  await page.route("**/v1/models", (route) => route.fulfill({ json: { object: "list", data } }));
  await page.route("**/v1/chat/completions", (route) => route.fulfill(sse(chunk({ content: "Hi." }, "stop"))));
  await page.reload();
  await page.selectOption("#model", "group/two");
  const sent = nextBody(page);
  await page.fill("#input", "Hello");
  await page.click("#send");
  assert.equal((await sent).model, "group/two");
  await ended(page);
});

check("reasoning is shown in a part that closes", async (page) => {
  const thinks = chunk({ reasoning: "The user greets." });
  await page.route("**/v1/chat/completions", (route) => route.fulfill(sse(thinks, chunk({ content: "Hello!" }, "stop"))));
  await ask(page, "Hello");
  assert.equal(await page.isVisible(".reasoning .text"), false);
  await page.click(".reasoning summary");
  assert.equal(await page.textContent(".reasoning .text"), "The user greets.");
  assert.equal(await page.textContent(".markdown"), "Hello!");
  await shot(page, "reasoning");
});

check("tool calls are shown, and their results are sent", async (page) => {
  const call = (part) => chunk({ tool_calls: [{ index: 0, ...part }] });
  const calls = sse(
    call({ id: "call_1", type: "function", function: { name: "weather", arguments: "" } }),
    call({ function: { arguments: '{"city":' } }),
    call({ function: { arguments: '"Oslo"}' } }),
    chunk({}, "tool_calls"),
  );
  const bodies = [];
  await page.route("**/v1/chat/completions", (route) => {
    bodies.push(body(route.request()));
    return route.fulfill(bodies.length === 1 ? calls : sse(chunk({ content: "It rains." }, "stop")));
  });
  const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
  await page.click("summary:has-text('Tools')");
  await page.fill("#set-tools", JSON.stringify(tools));
  await ask(page, "The weather in Oslo?");
  assert.deepEqual(bodies[0].tools, tools);
  assert.equal(await page.textContent(".call-name"), "Tool call weather");
  assert.equal(await page.textContent(".tool-call pre"), '{\n  "city": "Oslo"\n}');
  await shot(page, "tool-call");
  await page.fill(".tool-call textarea", "rain, 7 °C");
  await page.click("button:has-text('Send results')");
  await ended(page);
  assert.deepEqual(bodies[1].messages.slice(1), [
    {
      role: "assistant",
      content: null,
      tool_calls: [{ id: "call_1", type: "function", function: { name: "weather", arguments: '{"city":"Oslo"}' } }],
    },
    { role: "tool", tool_call_id: "call_1", content: "rain, 7 °C" },
  ]);
  assert.equal(await page.textContent(".message:last-child .markdown"), "It rains.");
});
