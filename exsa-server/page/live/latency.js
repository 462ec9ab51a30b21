// Histograms of the times that a user feels.

import { el } from "../dom.js";
import { histogram } from "./chart.js";
import { count, time } from "../format.js";

const CHARTS = [
  { name: "Time to first token", key: "time_to_first_token" },
  { name: "Time between tokens", key: "inter_token" },
  { name: "Time in the queue", key: "queue_time" },
];

export class Latency {
  #node;
  #shown = "";

  constructor(node) {
    this.#node = node;
  }

  /** Shows the histograms, unless they are the same as before. */
  show(latency) {
    const text = JSON.stringify(latency);
    if (text === this.#shown) return;
    this.#shown = text;
    const range = common(CHARTS.map(({ key }) => latency[key].buckets));
    this.#node.replaceChildren(...CHARTS.map(({ name, key }) => chart(name, latency[key], range)));
  }
}

/** The buckets `[first, end)` from the first to the last that is not empty, over all histograms. */
function common(all) {
  const filled = all.flatMap((buckets) => buckets.flatMap(([, value], index) => (value > 0 ? [index] : [])));
  const [first, last] = filled.length > 0 ? [Math.min(...filled), Math.max(...filled)] : [0, all[0].length - 1];
  return [Math.max(first - 1, 0), Math.min(last + 2, all[0].length)];
}

function chart(name, { count: number, mean, p50, p95, p99, buckets }, [first, end]) {
  const part = buckets.slice(first, end);
  const label = number === 0
    ? `${name}: no values yet`
    : `${name}: half of ${count(number)} within ${time(p50)}, 95 % within ${time(p95)}`;
  const bound = ([upper]) => (upper === null ? "longer" : time(upper));
  const ends = el("p", { class: "ends", "aria-hidden": "true" }, el("span", { text: bound(part[0]) }), el("span", { text: bound(part.at(-1)) }));
  const cell = (term, value) => el("div", {}, el("dt", { text: term }), el("dd", { text: time(value) }));
  const figures = el("dl", { class: "facts" }, cell("mean", mean), cell("p50", p50), cell("p95", p95), cell("p99", p99));
  return el("div", { class: "chart" }, el("h3", { text: name }), histogram(part, label), ends, figures);
}
