// Use of the KV cache, and the share of prompt tokens that the prefix cache saved.

import { el } from "../dom.js";
import { stackedBar } from "./chart.js";
import { count, percent } from "../format.js";
import { fact } from "./queues.js";

/** Shows the caches. */
export function showCache(node, { kv_tokens: kv, totals }) {
  const free = Math.max(kv.max - kv.used - kv.cached, 0);
  const share = (value) => (kv.max > 0 ? percent(value / kv.max) : "–");
  const label = `KV cache: ${share(kv.used)} in use, ${share(kv.cached)} cached prefixes, ${share(free)} free`;
  const bar = stackedBar([{ value: kv.used, kind: "used" }, { value: kv.cached, kind: "cached" }], kv.max, label);
  const key = (kind, name, value) =>
    el("li", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), `${name} ${share(value)}`);
  const legend = el(
    "ul",
    { class: "legend" },
    [key("used", "in use", kv.used), key("cached", "cached prefixes", kv.cached), key("free", "free", free)],
  );
  const hits = totals.prompt_tokens > 0 ? percent(totals.cached_tokens / totals.prompt_tokens) : "–";
  const facts = el(
    "dl",
    { class: "facts" },
    fact("Capacity in tokens", count(kv.max)),
    fact("Shared by sequences", count(kv.shared)),
    fact("Prefix cache hits", hits),
    fact("Tokens saved", count(totals.cached_tokens)),
  );
  node.replaceChildren(bar, legend, facts);
}
