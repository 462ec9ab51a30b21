// Both views in both schemes and at several sizes: axe-core, overflow, contrast by the scheme, screenshots.

import assert from "node:assert/strict";
import { accessible, ask, check, shot } from "./harness.mjs";

const SIZES = [
  { name: "wide", viewport: { width: 1280, height: 800 } },
  { name: "360", viewport: { width: 360, height: 740 } },
  // A window of 1280 x 800 at 200 % and at 400 % zoom.
  { name: "zoom-200", viewport: { width: 640, height: 400 }, deviceScaleFactor: 2 },
  { name: "zoom-400", viewport: { width: 320, height: 256 }, deviceScaleFactor: 4 },
];

for (const colorScheme of ["light", "dark"]) {
  for (const { name, ...size } of SIZES) {
    const options = { ...size, colorScheme, bypassCSP: true };
    check(`chat, ${colorScheme}, ${name}: no violation, no overflow`, async (page) => {
      await accessible(page);
      await page.evaluate(() => (document.querySelector("#set-max_tokens").value = "40"));
      await ask(page, "Tell me a story about a dog.");
      await accessible(page);
      await shot(page, `chat-${colorScheme}-${name}`);
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const [red] = ground.match(/\d+/g).map(Number);
      assert.equal(red < 128, colorScheme === "dark", ground);
    }, options);
    check(`live, ${colorScheme}, ${name}: no violation, no overflow`, async (page) => {
      await page.click("nav [data-view=live]");
      await page.waitForSelector("#live-latency svg");
      await page.waitForSelector("#live-models .model");
      await accessible(page);
      await shot(page, `live-${colorScheme}-${name}`);
    }, options);
  }
}

check("the dialog of the key: no violation", async (page) => {
  await page.click("#key-open");
  await accessible(page);
  await shot(page, "key");
}, { bypassCSP: true });

check("everything is reached by the keyboard, with a visible focus", async (page) => {
  const reached = [];
  for (let presses = 0; presses < 24; presses += 1) {
    await page.keyboard.press("Tab");
    const focus = await page.evaluate(() => {
      const node = document.activeElement;
      const style = getComputedStyle(node);
      const ring = style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2;
      return { name: node.id || node.textContent.trim(), ring: ring || node === document.body };
    });
    assert.ok(focus.ring, `${focus.name} has no visible focus`);
    reached.push(focus.name);
  }
  const order = ["Skip to content", "Chat", "Live", "key-open", "model", "chat-new", "settings-toggle", "input", "send"];
  assert.deepEqual(reached.filter((name) => order.includes(name)).slice(0, order.length), order);
  assert.ok(reached.includes("set-system"));
});

check("without animations where the reader wants none", async (page) => {
  const durations = await page.evaluate(() => {
    document.querySelector("#messages").append(Object.assign(document.createElement("p"), { className: "pending" }));
    return getComputedStyle(document.querySelector(".pending"), "::after").animationName;
  });
  assert.equal(durations, "none");
}, { reducedMotion: "reduce" });
