// Sampling settings, kept in the session storage of the tab.

import { byId } from "../dom.js";

const NAME = "exsa.settings";
const SAMPLING = ["temperature", "top_p", "top_k", "min_p", "seed", "max_tokens"];

export class Settings {
  constructor() {
    this.form = byId("settings-form");
    this.#restore();
    this.form.addEventListener("input", () => this.#changed());
    this.form.addEventListener("reset", () => queueMicrotask(() => this.#changed()));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.#panel();
  }

  /** The settings, or null if one of them is not valid; the form then shows which. */
  read() {
    this.show();
    if (byId("settings-error").textContent !== "" || !this.form.checkValidity()) {
      this.open(true);
      this.form.reportValidity();
      return null;
    }
    const sampling = {};
    for (const name of SAMPLING) {
      const text = this.form.elements[name].value.trim();
      if (text !== "") sampling[name] = Number(text);
    }
    return { system: this.form.elements.system.value.trim(), sampling, tools: this.#tools() };
  }

  /** Shows the fault of the list of tools, or none. */
  show() {
    let fault = "";
    try {
      this.#tools();
    } catch (error) {
      fault = `Tools: ${error.message}`;
    }
    byId("settings-error").textContent = fault;
  }

  /** Opens or closes the panel. */
  open(open) {
    byId("settings").hidden = !open;
    byId("settings-toggle").setAttribute("aria-expanded", String(open));
  }

  #tools() {
    const text = this.form.elements.tools.value.trim();
    if (text === "") return [];
    const tools = JSON.parse(text);
    if (!Array.isArray(tools)) throw new Error("a JSON list is expected, as [{\"type\": \"function\", …}]");
    return tools;
  }

  #changed() {
    this.show();
    const values = Object.fromEntries(new FormData(this.form));
    sessionStorage.setItem(NAME, JSON.stringify(values));
  }

  #restore() {
    const values = JSON.parse(sessionStorage.getItem(NAME) ?? "{}");
    for (const [name, value] of Object.entries(values)) {
      if (this.form.elements[name]) this.form.elements[name].value = value;
    }
  }

  #panel() {
    const toggle = byId("settings-toggle");
    toggle.addEventListener("click", () => this.open(byId("settings").hidden));
    this.open(window.matchMedia("(min-width: 64rem)").matches);
  }
}
