// Requests that run and wait, by class and by user.

import { el } from "../dom.js";
import { stackedBar } from "./chart.js";
import { count } from "../format.js";

/** Users with the most waiting requests that are shown. */
const USERS_MAX = 10;

/** Shows the queues. */
export function showQueues(node, { running, waiting, waiting_by_class: classes, waiting_by_user: users, totals }) {
  const whole = Math.max(waiting, 1);
  const row = (name, value) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", text: name }),
      el("td", { class: "number", text: count(value) }),
      el("td", { class: "wide" }, stackedBar([{ value, kind: "used" }], whole, `${value} of ${waiting} waiting requests`)),
    );
  const facts = el(
    "dl",
    { class: "facts" },
    fact("Running", count(running)),
    fact("Waiting", count(waiting)),
    fact("Failed", count(totals.requests_failed)),
    fact("Preemptions", count(totals.preemptions)),
  );
  const byClass = table("Waiting, by class", classes.map(({ class: name, waiting: value }) => row(name, value)));
  const parts = [facts, byClass];
  if (users !== undefined) {
    const most = [...users].sort((a, b) => b.waiting - a.waiting).slice(0, USERS_MAX);
    const rows = most.map(({ user, waiting: value }) => row(user || "no user", value));
    parts.push(rows.length > 0 ? table("Waiting, by user", rows) : el("p", { class: "hint", text: "No user waits." }));
  }
  node.replaceChildren(...parts);
}

const table = (caption, rows) =>
  el(
    "table",
    { class: "bars" },
    el("caption", { text: caption }),
    el("thead", { class: "hidden" }, el("tr", {}, ["Name", "Requests", "Share"].map((text) => el("th", { scope: "col", text })))),
    el("tbody", {}, rows),
  );

/** A term and its value. */
export const fact = (name, value) => el("div", {}, el("dt", { text: name }), el("dd", { text: value }));
