// A tool call of an answer: its name, its arguments, and a field for its result.

import { el, setText } from "../dom.js";

let count = 0;

export class ToolCallView {
  constructor(call) {
    this.call = call;
    count += 1;
    const [nameId, resultId] = [`call-${count}`, `result-${count}`];
    this.name = el("strong");
    this.arguments = el("code");
    this.input = el("textarea", { id: resultId, rows: 2, class: "code", oninput: () => (call.result = this.input.value) });
    this.result = el("div", {}, el("label", { for: resultId, text: "Result" }), this.input);
    const title = el("p", { id: nameId, class: "call-name" }, "Tool call ", this.name);
    const pre = el("pre", { tabindex: "0", role: "region", "aria-label": "Arguments" }, this.arguments);
    this.node = el("section", { class: "tool-call", "aria-labelledby": nameId }, title, pre, this.result);
  }

  /** Shows the call as it is now; `asks` shows the field for the result. */
  update(asks, given) {
    setText(this.name, this.call.name);
    setText(this.arguments, pretty(this.call.arguments));
    this.result.hidden = !asks && given === undefined;
    this.input.readOnly = given !== undefined;
    if (given !== undefined) this.input.value = given;
  }
}

/** Arguments with one field a line; while they are still being written, as they are. */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
