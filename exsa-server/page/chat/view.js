// The chat: composer, messages, and the running answer.

import { ApiError } from "../api.js";
import { byId, el } from "../dom.js";
import { Announcer } from "./announcer.js";
import { stream } from "./answer.js";
import { Conversation } from "./conversation.js";
import { AnswerView, facts, userMessage } from "./message.js";
import { ModelChooser } from "./models.js";
import { Settings } from "./settings.js";

/** Distance from the end of the page, in pixels, within which a growing answer keeps the end in view. */
const FOLLOW_PX = 120;

class Chat {
  #conversation = new Conversation();
  #settings = new Settings();
  #models = new ModelChooser();
  #announcer = new Announcer();
  /** The controller of the running request, or null. */
  #running = null;
  /** The element of the last answer. */
  #view = null;
  #frame = 0;

  constructor() {
    this.list = byId("messages");
    this.input = byId("input");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.input.addEventListener("input", () => this.#fit());
    byId("stop").addEventListener("click", () => this.#running?.abort());
    byId("chat-new").addEventListener("click", () => this.#clear());
    this.#show();
  }

  /** Asks the server for its models again. */
  async refreshModels() {
    try {
      await this.#models.refresh();
    } catch (error) {
      this.#notice(error, null);
    }
  }

  #submit() {
    const text = this.input.value;
    if (this.#running !== null || text.trim() === "" || this.#settings.read() === null) return;
    this.#conversation.ask(text);
    this.input.value = "";
    this.#fit();
    this.#answer();
  }

  #clear() {
    this.#running?.abort();
    this.#conversation = new Conversation();
    this.#notice(null);
    this.#show();
    this.input.focus();
  }

  #regenerate() {
    if (this.#running !== null) return;
    this.#conversation.dropAnswer();
    this.#answer();
  }

  #edit(text) {
    if (this.#running !== null) return;
    this.#conversation.edit(text);
    this.#answer();
  }

  #sendResults() {
    if (this.#running !== null) return;
    const { calls } = this.#conversation.messages.at(-1);
    this.#conversation.addResults(calls.map((call) => ({ id: call.id, content: call.result })));
    this.#answer();
  }

  /** Requests the next answer and shows it as it comes. */
  async #answer() {
    const settings = this.#settings.read();
    if (settings === null) return;
    const conversation = this.#conversation;
    const body = conversation.request(this.#models.value, settings);
    const answer = conversation.beginAnswer(this.#models.value);
    const controller = new AbortController();
    this.#running = controller;
    this.#notice(null);
    this.#show();
    this.#announcer.begin();
    this.#toEnd();
    let failure = null;
    try {
      await stream(body, answer, controller.signal, () => this.#grow(answer));
      answer.state = "done";
    } catch (error) {
      answer.ended = performance.now();
      answer.state = error.name === "AbortError" ? "stopped" : "failed";
      if (answer.state === "failed") failure = error;
    }
    this.#running = null;
    if (conversation !== this.#conversation) return;
    this.#end(answer, failure);
  }

  /** Shows the growing answer at the next frame. */
  #grow(answer) {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (answer.state !== "running") return;
      const follows = nearEnd();
      this.#view?.update(true);
      this.#announcer.grow(answer.content);
      if (follows) this.#toEnd();
    });
  }

  #end(answer, failure) {
    const follows = nearEnd();
    const stopHadFocus = document.activeElement === byId("stop");
    const empty = answer.content === "" && answer.reasoning === "" && answer.calls.length === 0;
    if (failure !== null && empty) this.#conversation.dropAnswer();
    this.#show();
    if (failure !== null) this.#notice(failure, () => this.#regenerate());
    else this.#announcer.end(answer.content, facts(answer) || "The answer is complete.");
    if (stopHadFocus || document.activeElement === document.body) this.input.focus({ preventScroll: true });
    if (follows) this.#toEnd();
  }

  /** Shows all messages. */
  #show() {
    const { messages } = this.#conversation;
    const running = this.#running !== null;
    const lastUser = this.#conversation.lastUserIndex();
    const results = new Map(messages.filter(({ role }) => role === "tool").map(({ id, content }) => [id, content]));
    const nodes = [];
    messages.forEach((message, index) => {
      const last = index === messages.length - 1;
      if (message.role === "user") {
        const edit = index === lastUser && !running ? (text) => this.#edit(text) : null;
        nodes.push(userMessage(message, edit));
      } else if (message.role === "assistant") {
        const view = new AnswerView(message, {
          regenerate: () => this.#regenerate(),
          sendResults: () => this.#sendResults(),
        });
        view.update(last, results);
        if (last) this.#view = view;
        nodes.push(view.node);
      }
    });
    this.list.replaceChildren(...nodes);
    byId("chat-empty").hidden = messages.length > 0;
    byId("stop").hidden = !running;
    byId("send").hidden = running;
  }

  #notice(error, again) {
    const box = byId("chat-notice");
    if (error === null) return box.replaceChildren();
    const known = error instanceof ApiError;
    const text = known ? error.message : `The page failed: ${error.message}`;
    const retry = again && el("button", { type: "button", class: "small", text: "Try again", onclick: again });
    return box.replaceChildren(el("div", { class: "notice error" }, el("p", { text }), retry));
  }

  /** Fits the height of the input to its text. */
  #fit() {
    const lines = this.input.value.split("\n").length;
    this.input.rows = Math.min(10, Math.max(2, lines));
  }

  #toEnd() {
    window.scrollTo(0, document.documentElement.scrollHeight);
  }
}

const nearEnd = () =>
  window.innerHeight + window.scrollY > document.documentElement.scrollHeight - FOLLOW_PX;

/** Starts the chat. */
export const startChat = () => new Chat();
