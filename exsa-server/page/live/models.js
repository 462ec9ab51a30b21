// Models with their states, and their lifecycle: load, cancel, unload, reload, activate.

import { ApiError, call, json } from "../api.js";
import { el, setText } from "../dom.js";
import { bytes } from "../format.js";
import { events } from "../sse.js";
import { ModelCard } from "./model_card.js";

/** Interval of the list: while a model changes and no events come, and otherwise. */
const [BUSY_MS, QUIET_MS] = [500, 3000];
/** Time for which changes that follow each other are collected before the list is asked for. */
const COLLECT_MS = 100;

const OPERATIONS = {
  load: { path: "v1/models/load", begun: "Loading", done: () => "is loaded" },
  cancel: { path: "v1/models/cancel", begun: "Cancelling", done: () => "is not loaded further" },
  unload: { path: "v1/models/unload", begun: "Unloading", done: () => "is unloaded" },
  reload: { path: "v1/models/reload", begun: "Reloading", done: reloaded },
  activate: { path: "v1/models/active", begun: "Activating", done: () => "is the active model" },
};

export class ModelsPanel {
  #cards = new Map();
  #timer = 0;
  #shown = false;
  #states = "";
  /** Whether the server has the routes of the lifecycle. */
  #managed = true;
  /** The controller of the running stream of events, or null. */
  #following = null;
  /** Whether the server has refused to send events. */
  #deaf = false;

  constructor(node, status, changed) {
    this.status = status;
    this.changed = changed;
    this.list = el("ul", { class: "models" });
    this.memory = el("p", { class: "hint" });
    this.error = el("div", { role: "alert" });
    node.append(this.list, this.memory, this.error);
  }

  /** Begins to ask for the models. */
  show() {
    this.#shown = true;
    this.#deaf = false;
    this.#ask();
  }

  /** Stops asking. */
  hide() {
    this.#shown = false;
    clearTimeout(this.#timer);
    this.#following?.abort();
  }

  async #ask() {
    let busy = false;
    if (document.visibilityState === "visible") {
      try {
        const list = await this.#fetch();
        this.#show(list);
        busy = list.data.some(({ state, reload }) => state === "loading" || state === "draining" || reload);
        this.#fail("");
        if (this.#shown && list.data.some(({ settings }) => settings)) this.#follow();
      } catch (error) {
        this.#fail(error.message);
      }
    }
    this.#plan(busy && this.#deaf ? BUSY_MS : QUIET_MS);
  }

  #plan(delay) {
    clearTimeout(this.#timer);
    if (this.#shown) this.#timer = setTimeout(() => this.#ask(), delay);
  }

  async #fetch() {
    if (this.#managed) {
      try {
        return await json("GET", "v1/models/list", { ask: false });
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 404) throw error;
        this.#managed = false;
      }
    }
    const { data } = await json("GET", "v1/models", { ask: false });
    return { data: data.map((model, index) => ({ id: model.id, state: "ready", active: index === 0, info: model.meta })) };
  }

  /** Reads the events of the server: progress is shown at once, other changes ask for the list. */
  async #follow() {
    if (this.#deaf || this.#following !== null) return;
    const controller = new AbortController();
    this.#following = controller;
    try {
      const response = await call("GET", "v1/models/events", { signal: controller.signal, ask: false });
      for await (const { event, data } of events(response)) {
        const { model, progress } = JSON.parse(data);
        if (event === "progress") this.#cards.get(model)?.showProgress(progress);
        else if (event !== "models") this.#plan(COLLECT_MS);
      }
    } catch (error) {
      // Without events the list is asked for more often.
      if (error.name !== "AbortError") this.#deaf = true;
    }
    this.#following = null;
  }

  #show({ data, memory }) {
    const names = new Set(data.map((model) => model.id));
    for (const [name, card] of this.#cards) {
      if (names.has(name)) continue;
      card.node.remove();
      this.#cards.delete(name);
    }
    for (const model of data) {
      let card = this.#cards.get(model.id);
      if (card === undefined) {
        // Models without settings belong to a server whose models are fixed.
        const run = model.settings ? (operation) => this.#run(operation, model.id) : null;
        card = new ModelCard(model.id, run);
        this.#cards.set(model.id, card);
        this.list.append(card.node);
      }
      card.update(model);
    }
    setText(this.memory, memoryText(memory, data));
    const states = JSON.stringify(data.map(({ id, state }) => [id, state]));
    if (this.#states !== "" && states !== this.#states) this.changed();
    this.#states = states;
  }

  /** Asks the server for an operation, and says how it went. */
  async #run(operation, model) {
    const { path, begun, done } = OPERATIONS[operation];
    setText(this.status, `${begun} ${model} …`);
    this.#plan(COLLECT_MS);
    try {
      const answer = await json("POST", path, { body: { model } });
      setText(this.status, `${model} ${done(answer)}.`);
    } catch (error) {
      setText(this.status, `${model}: ${error.message}`);
    }
    this.#plan(0);
  }

  /** An alert speaks whenever it changes, so it changes only with its text. */
  #fail(text) {
    if (this.error.textContent === text) return;
    this.error.replaceChildren(...(text === "" ? [] : [el("p", { class: "error-text", text })]));
  }
}

function reloaded({ reload_order: order }) {
  const how = order === "unload_first" ? "it was unloaded first, as memory did not suffice for both" : "without a pause";
  return `is reloaded: ${how}`;
}

function memoryText(memory, models) {
  if (models.length === 0) return "No models are configured.";
  const parts = [];
  if (memory) {
    const budget = memory.budget_bytes === null ? "without a limit" : `of ${bytes(memory.budget_bytes)}`;
    parts.push(`Estimated memory: ${bytes(memory.used_bytes)} ${budget}.`);
  }
  if (!models.some((model) => model.settings)) parts.push("The models of this server are fixed.");
  return parts.join(" ");
}
