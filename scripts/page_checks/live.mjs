// The live view: figures of the server, and the lifecycle of its models.

import assert from "node:assert/strict";
import { ask, check, shot } from "./harness.mjs";

const live = (page) => page.click("nav [data-view=live]");

check("figures follow the server's work", async (page) => {
  await page.fill("#set-max_tokens", "32");
  await ask(page, "Tell me a story.");
  await live(page);
  const total = async () => Number((await page.textContent(".tile .hint")).match(/[\d,]+/)[0].replaceAll(",", ""));
  await page.waitForSelector("#live-throughput .tile");
  const before = await total();
  assert.ok(before >= 32);
  await page.click("nav [data-view=chat]");
  await ask(page, "And another one.");
  await live(page);
  await page.waitForFunction((before) => {
    const text = document.querySelector(".tile .hint").textContent;
    return Number(text.match(/[\d,]+/)[0].replaceAll(",", "")) >= before + 32;
  }, before);
  assert.match(await page.textContent("#live-queues"), /Running.*Waiting.*interactive.*normal.*batch/s);
  assert.match(await page.textContent("#live-cache"), /Capacity in tokens[\d,]+/);
  const label = await page.getAttribute("#live-latency svg", "aria-label");
  assert.match(label, /Time to first token: half of \d+ within .* ms|s, 95 %/);
});

check("pause stops the questions to the server", async (page) => {
  await live(page);
  await page.waitForSelector("#live-throughput .tile");
  await page.click("#live-pause");
  assert.equal(await page.getAttribute("#live-pause", "aria-pressed"), "true");
  await page.waitForTimeout(500);
  let asked = 0;
  page.on("request", (request) => (asked += request.url().includes("/v1/stats") ? 1 : 0));
  await page.waitForTimeout(3000);
  assert.equal(asked, 0);
  await page.click("#live-pause");
  await page.waitForTimeout(1000);
  assert.ok(asked > 0);
});

check("the built-in model is unloaded and loaded again", async (page, { managed }) => {
  await live(page);
  const card = page.locator(".model").first();
  await card.waitFor();
  if (!managed) return;
  const name = await card.locator("h3").textContent();
  await card.getByRole("button", { name: `Unload: ${name}` }).click();
  await card.getByText("unloaded", { exact: true }).waitFor();
  await page.locator("#models-status", { hasText: "is unloaded." }).waitFor();
  await page.click("nav [data-view=chat]");
  await page.waitForFunction(() => document.querySelector("#model").textContent === "no model is loaded");
  page.expect(503);
  await ask(page, "Hello");
  assert.match(await page.textContent("#chat-notice"), /cannot answer now/);
  await live(page);
  await card.getByRole("button", { name: `Load: ${name}` }).click();
  await page.locator("#models-status", { hasText: "is loaded." }).waitFor();
  await card.getByText("ready", { exact: true }).waitFor();
  await card.getByRole("button", { name: `Reload: ${name}` }).click();
  await page.locator("#models-status", { hasText: "is reloaded: without a pause." }).waitFor();
  await page.click("nav [data-view=chat]");
  await page.waitForFunction((name) => document.querySelector("#model").value === name, name);
  await page.fill("#set-max_tokens", "4");
  await ask(page, "Hello");
  assert.match(await page.locator(".message.assistant .actions").last().textContent(), /4 tokens/);
});

/** A server with two models, one of which loads in steps. */
class Lifecycle {
  state = "unloaded";
  active = "one";
  fraction = null;
  orders = [];
  fails = false;

  model(id, state) {
    const progress = state === "loading" ? { fraction: this.fraction, done_bytes: 1, total_bytes: 2, remaining_seconds: 3 } : null;
    const requests = { in_flight: 0, running: 0, waiting: 0 };
    return { id, state, active: this.active === id, aliases: [], settings: {}, reload: null, memory: null, progress, requests, info: null };
  }

  async attach(page) {
    await page.route("**/v1/models/events", (route) => route.fulfill({ status: 404, json: {} }));
    await page.route("**/v1/models/list", (route) =>
      route.fulfill({
        json: {
          active: this.active,
          memory: { used_bytes: 3 << 20, budget_bytes: 8 << 20 },
          data: [this.model("one", "ready"), this.model("two", this.state)],
        },
      }),
    );
    await page.route(/v1\/models\/(load|unload|cancel|active)$/, async (route) => {
      const operation = route.request().url().split("/").at(-1);
      const { model } = JSON.parse(route.request().postData());
      this.orders.push(`${operation} ${model}`);
      if (operation === "load") {
        this.state = "loading";
        for (this.fraction of [null, 0.25, 0.5, 0.75]) await new Promise((resolve) => setTimeout(resolve, 700));
        this.state = this.fails ? "failed" : "ready";
      }
      if (operation === "unload") this.state = "unloaded";
      if (operation === "active") this.active = model;
      if (this.fails) return route.fulfill({ status: 507, json: { error: { message: "8 GiB are needed, 2 GiB are free" } } });
      return route.fulfill({ json: { id: model } });
    });
  }
}

check("a model is loaded with progress, made active and unloaded", async (page) => {
  page.expect(404);
  const server = new Lifecycle();
  await server.attach(page);
  await live(page);
  const card = page.locator(".model", { hasText: "two" });
  await card.getByRole("button", { name: "Load: two" }).press("Enter");
  const seen = new Set();
  while (server.state !== "ready") {
    const value = await card.locator("progress").getAttribute("value").catch(() => null);
    if (await card.locator("progress").isVisible()) seen.add(value);
    if (seen.size === 3) await shot(page, "loading");
    await page.waitForTimeout(100);
  }
  assert.ok(seen.size >= 3, `progress was ${[...seen]}`);
  await card.getByText("ready").waitFor();
  assert.match(await page.textContent("#models-status"), /two is loaded\./);
  assert.ok(await card.evaluate((node) => node.contains(document.activeElement)), "the focus stays at the model");
  await card.getByRole("button", { name: "Make active: two" }).click();
  await card.getByText("active", { exact: true }).waitFor();
  await card.getByRole("button", { name: "Unload: two" }).click();
  await card.getByText("unloaded").waitFor();
  assert.deepEqual(server.orders, ["load two", "active two", "unload two"]);
});

check("a load that fails says why", async (page) => {
  page.expect(404).add("507");
  const server = new Lifecycle();
  server.fails = true;
  await server.attach(page);
  await live(page);
  await page.getByRole("button", { name: "Load: two" }).click();
  await page.locator("#models-status", { hasText: "8 GiB are needed, 2 GiB are free." }).waitFor();
  await page.locator(".model", { hasText: "two" }).getByText("failed").waitFor();
});

check("a server without the lifecycle's routes shows its models", async (page) => {
  page.expect(404);
  await page.route("**/v1/models/list", (route) => route.fulfill({ status: 404, json: {} }));
  await live(page);
  await page.waitForSelector(".model");
  assert.match(await page.textContent("#live-models"), /ready.*The models of this server are fixed/s);
  assert.equal(await page.locator(".model button").count(), 0);
});
