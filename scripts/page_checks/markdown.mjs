// Texts of models as elements: Markdown is rendered, and nothing of it becomes HTML.

import assert from "node:assert/strict";
import { ask, check, chunk, shot, sse } from "./harness.mjs";

const TEXT = `# Title

A **bold** and *leaning* word, \`a < b\`, snake_case_name, 2 * 3 * 4, and a [link](https://example.org/a?b=c).

1. First
2. Second:
   - nested *one*
   - nested two
3. Third

\`\`\`rust
fn main() { println!("<b>&amp;</b>"); }
\`\`\`

| model | tokens/s |
|-------|---------:|
| small | 120 |

> A quote
> of two lines

---

<img src="x" onerror="alert(1)"> <script>alert(1)</script>
[bad](javascript:alert(1)) [worse](data:text/html,x)`;

const answer = (page, text) =>
  page.route("**/v1/chat/completions", (route) => route.fulfill(sse(chunk({ content: text }, "stop"))));

check("Markdown is rendered", async (page) => {
  await answer(page, TEXT);
  await ask(page, "Hello");
  const text = (selector) => page.locator(`.markdown ${selector}`).allTextContents();
  assert.deepEqual(await text("> h3"), ["Title"]);
  assert.deepEqual(await text("strong"), ["bold"]);
  assert.deepEqual(await text("em"), ["leaning", "one"]);
  assert.deepEqual(await text("p code"), ["a < b"]);
  assert.match((await text("> p"))[0], /snake_case_name, 2 \* 3 \* 4/);
  assert.equal(await page.locator(".markdown > ol > li").count(), 3);
  assert.deepEqual(await text("ol ul li"), ["nested one", "nested two"]);
  assert.deepEqual(await text("pre"), ['fn main() { println!("<b>&amp;</b>"); }']);
  assert.deepEqual(await text("td"), ["small", "120"]);
  assert.deepEqual(await text("blockquote"), ["A quote\nof two lines"]);
  const link = page.locator(".markdown a");
  assert.equal(await link.count(), 1);
  assert.equal(await link.getAttribute("href"), "https://example.org/a?b=c");
  assert.equal(await link.getAttribute("rel"), "noopener noreferrer");
  assert.match(await link.textContent(), /example\.org/, "the host is shown");
  await shot(page, "markdown");
});

check("HTML of models stays text", async (page) => {
  await answer(page, TEXT);
  await ask(page, TEXT);
  assert.equal(await page.locator("#messages").locator("img, script, iframe").count(), 0);
  assert.match(await page.textContent(".markdown > p:last-child"), /<img src="x" onerror="alert\(1\)"> <script>/);
  assert.match(await page.textContent(".markdown > p:last-child"), /\[bad\]\(javascript:alert\(1\)\)/);
});

check("the policy refuses inline scripts and foreign requests", async (page, { url }) => {
  const response = await page.goto(url);
  const policy = response.headers()["content-security-policy"];
  for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(part), part);
  }
  assert.ok(!policy.includes("unsafe"), policy);
  // A server of the check's own makes the same attempts in a page without the harness's listeners.
  const other = await page.context().newPage();
  await other.goto(url);
  const result = await other.evaluate(async () => {
    const script = document.createElement("script");
    let typed = "accepted";
    try {
      script.textContent = "window.inlineRan = true";
      document.head.append(script);
    } catch {
      typed = "refused";
    }
    const foreign = await fetch("http://127.0.0.1:9/").then(() => "sent", () => "refused");
    return { ran: window.inlineRan === true, typed, foreign };
  });
  assert.deepEqual(result, { ran: false, typed: "refused", foreign: "refused" });
});

check("hostile texts are rendered in time", async (page) => {
  const texts = ["*a ".repeat(20_000), "`".repeat(20_000), "[".repeat(20_000), "- ".repeat(20_000), "> ".repeat(20_000), "| - ".repeat(20_000), "#".repeat(20_000), "\n".repeat(50_000)];
  for (const text of texts) {
    await page.unroute("**/v1/chat/completions");
    await answer(page, text);
    const begun = performance.now();
    await ask(page, "Hello");
    const seconds = (performance.now() - begun) / 1000;
    assert.ok(seconds < 10, `${JSON.stringify(text.slice(0, 6))} took ${seconds} s`);
    await page.click("#chat-new");
  }
});
