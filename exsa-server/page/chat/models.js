// The chooser of the model.

import { json } from "../api.js";
import { byId, el } from "../dom.js";

const NAME = "exsa.model";

export class ModelChooser {
  constructor() {
    this.select = byId("model");
    this.select.addEventListener("change", () => sessionStorage.setItem(NAME, this.select.value));
  }

  /** Name of the chosen model; empty if there is none, which leaves the choice to the server. */
  get value() {
    return this.select.value;
  }

  /** Asks the server for its models. A choice that is still there stays. */
  async refresh() {
    const { data } = await json("GET", "v1/models");
    const names = data.map((model) => model.id);
    const chosen = this.select.value || sessionStorage.getItem(NAME);
    const options = names.map((name) => el("option", { value: name, text: name }));
    if (options.length === 0) options.push(el("option", { value: "", text: "no model is loaded" }));
    this.select.replaceChildren(...options);
    if (names.includes(chosen)) this.select.value = chosen;
  }
}
