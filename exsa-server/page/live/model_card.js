// One model: its state, facts, progress of a load, and the operations that its state allows.

import { el, setText } from "../dom.js";
import { bytes, count, duration, short } from "../format.js";

/** Operations by state. */
const ALLOWED = {
  unloaded: ["load"],
  loading: ["cancel"],
  ready: ["activate", "reload", "unload"],
  draining: ["load"],
  sleeping: ["load", "unload"],
  failed: ["load"],
};

const LABELS = { load: "Load", cancel: "Cancel", activate: "Make active", reload: "Reload", unload: "Unload" };

export class ModelCard {
  /** `run(operation)` begins an operation; null shows none. */
  constructor(name, run) {
    this.name = name;
    this.state = el("span", { class: "state" });
    this.active = el("span", { class: "state is-active", text: "active", hidden: true });
    this.facts = el("p", { class: "hint" });
    this.reason = el("p", { class: "error-text", hidden: true });
    this.progress = el("progress", { max: 1, "aria-label": `Loading ${name}` });
    this.progressText = el("span", { class: "hint" });
    this.loading = el("div", { class: "loading", hidden: true }, this.progress, this.progressText);
    this.buttons = new Map();
    for (const operation of run === null ? [] : Object.keys(LABELS)) {
      const label = `${LABELS[operation]}: ${name}`;
      const press = () => run(operation);
      this.buttons.set(
        operation,
        el("button", { type: "button", class: "small", text: LABELS[operation], "aria-label": label, onclick: press }),
      );
    }
    this.title = el("h3", { text: name, tabindex: "-1" });
    const head = el("div", { class: "row" }, this.title, this.state, this.active);
    const text = el("div", { class: "grow" }, head, this.facts, this.reason, this.loading);
    this.node = el("li", { class: "model" }, text, el("div", { class: "row" }, ...this.buttons.values()));
  }

  /** Shows the model as the server describes it. */
  update(model) {
    const state = model.reload ? "reloading" : model.state;
    setText(this.state, state);
    this.state.className = `state is-${state}`;
    this.active.hidden = !model.active;
    setText(this.facts, facts(model));
    this.reason.hidden = !model.reason;
    setText(this.reason, model.reason ?? "");
    const loads = model.state === "loading" || Boolean(model.reload);
    this.loading.hidden = !loads;
    if (loads) this.showProgress(model.progress);
    const allowed = model.reload ? ["cancel"] : (ALLOWED[model.state] ?? []);
    const focused = document.activeElement;
    for (const [operation, button] of this.buttons) {
      button.hidden = !allowed.includes(operation) || (operation === "activate" && model.active);
    }
    // A button that goes away must not take the keyboard's place with it.
    if (this.node.contains(focused) && focused.hidden) this.#focus();
  }

  /** Shows how far a load has come; without a total, that it runs. */
  showProgress(progress) {
    const fraction = progress?.fraction ?? null;
    if (fraction === null) this.progress.removeAttribute("value");
    else this.progress.value = fraction;
    const left = progress?.remaining_seconds ?? null;
    const parts = [fraction === null ? "waiting" : `${Math.round(fraction * 100)} %`];
    if (left !== null) parts.push(`${duration(left)} left`);
    setText(this.progressText, parts.join(", "));
  }

  #focus() {
    const next = [...this.buttons.values()].find((button) => !button.hidden);
    (next ?? this.title).focus();
  }
}

/** Facts about a model in one line. */
function facts({ info, memory, requests, aliases, pinned }) {
  const parts = [];
  if (info) {
    parts.push(`${info.architecture} ${info.quantization}`);
    parts.push(`${short(info.n_params)} parameters`);
    parts.push(`context ${count(info.n_ctx_train)}`);
  }
  if (memory) parts.push(`memory ${bytes(memory.total_bytes)}`);
  if (requests && requests.in_flight > 0) {
    parts.push(`${requests.running} running`, `${requests.waiting} waiting`);
  }
  if (aliases?.length > 0) parts.push(`also ${aliases.join(", ")}`);
  if (pinned) parts.push("pinned");
  return parts.join(" · ");
}
