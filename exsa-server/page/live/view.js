// The live view: asks the server for its figures at intervals, while it is shown and not paused.

import { ApiError, json } from "../api.js";
import { byId, el, setText } from "../dom.js";
import { showCache } from "./cache.js";
import { Latency } from "./latency.js";
import { ModelsPanel } from "./models.js";
import { showQueues } from "./queues.js";
import { Throughput } from "./throughput.js";

const INTERVAL_MS = 2000;

class Live {
  #shown = false;
  #paused = false;
  #timer = 0;
  #throughput = new Throughput(byId("live-throughput"));
  #latency = new Latency(byId("live-latency"));

  constructor({ modelsChanged }) {
    this.models = new ModelsPanel(byId("live-models"), byId("models-status"), modelsChanged);
    const pause = byId("live-pause");
    pause.addEventListener("click", () => {
      this.#paused = !this.#paused;
      pause.setAttribute("aria-pressed", String(this.#paused));
      setText(byId("live-status"), this.#paused ? "paused" : "");
      this.#plan(0);
    });
    document.addEventListener("visibilitychange", () => this.#plan(0));
  }

  /** Begins to ask. */
  show() {
    this.#shown = true;
    this.models.show();
    this.#plan(0);
  }

  /** Stops asking. */
  hide() {
    this.#shown = false;
    this.models.hide();
    clearTimeout(this.#timer);
  }

  #plan(delay) {
    clearTimeout(this.#timer);
    if (!this.#shown || this.#paused || document.visibilityState === "hidden") return;
    this.#timer = setTimeout(() => this.#ask(), delay);
  }

  async #ask() {
    try {
      const stats = await json("GET", "v1/stats?users=true", { ask: !this.#failed() });
      this.#throughput.add(stats);
      showQueues(byId("live-queues"), stats);
      showCache(byId("live-cache"), stats);
      this.#latency.show(stats.latency);
      this.#notice("");
    } catch (error) {
      const words = error instanceof ApiError ? error.message : `The page failed: ${error.message}`;
      this.#notice(words);
    }
    this.#plan(INTERVAL_MS);
  }

  #failed = () => byId("live-notice").childNodes.length > 0;

  /** An alert speaks whenever it changes, so it changes only with its text. */
  #notice(text) {
    const box = byId("live-notice");
    if (box.textContent === text) return;
    box.replaceChildren(...(text === "" ? [] : [el("div", { class: "notice error" }, el("p", { text }))]));
  }
}

/** Starts the live view. */
export const startLive = (hooks) => new Live(hooks);
