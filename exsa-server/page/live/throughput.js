// Tokens per second, from the differences of the counters between two answers of the server.

import { el } from "../dom.js";
import { sparkline } from "./chart.js";
import { count, rate } from "../format.js";

/** Points of a line: two minutes at the interval of the view. */
const POINTS = 60;

const TILES = [
  { name: "Generated", unit: "tokens/s", counter: "tokens_generated" },
  { name: "Computed", unit: "tokens/s", counter: "tokens_computed" },
  { name: "Requests", unit: "per minute", counter: "requests", scale: 60 },
  { name: "Steps", unit: "per second", counter: "steps" },
];

export class Throughput {
  #node;
  #before = null;
  #rates = TILES.map(() => []);

  constructor(node) {
    this.#node = node;
  }

  /** Takes in the counters of the server and shows the rates. */
  add({ uptime_seconds: time, totals }) {
    const before = this.#before;
    this.#before = { time, totals };
    // A server that was started again counts from zero.
    const known = before !== null && time > before.time;
    if (!known) this.#rates = TILES.map(() => []);
    TILES.forEach(({ counter, scale = 1 }, index) => {
      if (!known) return;
      const rates = this.#rates[index];
      rates.push((scale * (totals[counter] - before.totals[counter])) / (time - before.time));
      if (rates.length > POINTS) rates.shift();
    });
    this.#node.replaceChildren(...TILES.map((tile, index) => this.#tile(tile, this.#rates[index], totals)));
  }

  #tile({ name, unit, counter }, rates, totals) {
    const now = rates.length > 0 ? rate(rates.at(-1)) : "–";
    const peak = rates.length > 0 ? rate(Math.max(...rates)) : "–";
    const label = `${name}: ${now} ${unit} now, ${peak} at most in the last two minutes`;
    return el(
      "div",
      { class: "tile" },
      el("h3", { text: name }),
      el("p", { class: "figure" }, now, el("small", { text: ` ${unit}` })),
      sparkline(rates.length > 1 ? rates : [0, 0], POINTS, label),
      el("p", { class: "hint", text: `${count(totals[counter])} in all` }),
    );
  }
}
