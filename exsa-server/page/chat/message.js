// Elements of the messages of a conversation.

import { copyButton, el, setText } from "../dom.js";
import { Markdown } from "../markdown/render.js";
import { ToolCallView } from "./tool_call.js";

/** A message of the user; `edit(text)` replaces it and is null where that is not possible. */
export function userMessage(message, edit) {
  const body = el("div", { class: "text", text: message.content });
  const actions = el("div", { class: "actions" }, copyButton(() => message.content));
  const node = el("li", { class: "message user" }, el("h2", { class: "hidden", text: "You" }), body, actions);
  if (edit !== null) {
    const button = el("button", { type: "button", class: "small", text: "Edit" });
    button.addEventListener("click", () => {
      const editor = messageEditor(message.content, edit, () => {
        editor.replaceWith(body, actions);
        button.focus();
      });
      actions.remove();
      body.replaceWith(editor);
      editor.querySelector("textarea").focus();
    });
    actions.append(button);
  }
  return node;
}

function messageEditor(text, save, cancel) {
  const input = el("textarea", { id: "edit-input", rows: Math.min(12, text.split("\n").length + 1) });
  input.value = text;
  const submit = (event) => {
    event.preventDefault();
    if (input.value.trim() !== "") save(input.value);
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") cancel();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  return el(
    "form",
    { class: "editor", onsubmit: submit },
    el("label", { for: "edit-input", text: "Edit message" }),
    input,
    el(
      "div",
      { class: "row end" },
      el("button", { type: "button", text: "Cancel", onclick: cancel }),
      el("button", { type: "submit", class: "primary", text: "Send again" }),
    ),
  );
}

/** An answer, shown as it grows. */
export class AnswerView {
  #calls = [];
  /** Whether the reader opened or closed the reasoning; it then stays so. */
  #chosen = false;

  constructor(answer, { regenerate, sendResults }) {
    this.answer = answer;
    this.title = el("h2", { class: "who" });
    this.reasoningText = el("div", { class: "text" });
    this.summary = el("summary", { onclick: () => (this.#chosen = true) });
    this.reasoning = el("details", { class: "reasoning", hidden: true }, this.summary, this.reasoningText);
    this.markdown = new Markdown(el("div", { class: "markdown" }));
    this.pending = el("p", { class: "pending", text: "Waiting for the first token" });
    this.calls = el("div", { class: "calls" });
    this.facts = el("span", { class: "hint" });
    this.again = el("button", { type: "button", class: "small", text: "Regenerate", onclick: regenerate });
    this.send = el("button", { type: "button", class: "primary", text: "Send results", onclick: sendResults });
    this.actions = el("div", { class: "actions" }, copyButton(() => answer.content), this.again, this.facts);
    this.node = el(
      "li",
      { class: "message assistant" },
      [this.title, this.reasoning, this.markdown.node, this.pending, this.calls, this.send, this.actions],
    );
  }

  /** Shows the answer as it is now; `results` are the tool results given after it, `last` tells that none follows. */
  update(last, results = new Map()) {
    const { answer } = this;
    const running = answer.state === "running";
    const empty = answer.content === "" && answer.reasoning === "" && answer.calls.length === 0;
    setText(this.title, answer.model || "Model");
    this.pending.hidden = !(running && empty);
    this.#showReasoning(running);
    this.markdown.show(answer.content);
    const asks = last && !running && answer.calls.length > 0 && answer.state === "done";
    answer.calls.forEach((call, index) => {
      if (this.#calls[index] === undefined) {
        this.#calls[index] = new ToolCallView(call);
        this.calls.append(this.#calls[index].node);
      }
      this.#calls[index].update(asks, results.get(call.id));
    });
    this.send.hidden = !asks;
    this.again.hidden = !last;
    this.actions.hidden = running;
    setText(this.facts, facts(answer));
  }

  #showReasoning(running) {
    const { answer } = this;
    this.reasoning.hidden = answer.reasoning === "";
    const thinking = running && answer.content === "" && answer.calls.length === 0;
    setText(this.summary, thinking ? "Reasoning …" : "Reasoning");
    setText(this.reasoningText, answer.reasoning);
    if (!this.#chosen) this.reasoning.open = thinking;
  }
}

/** Facts about an answer that has ended, in words. */
export function facts({ state, finish, usage, began, ended }) {
  if (state === "running") return "";
  const parts = [];
  if (state === "stopped") parts.push("stopped");
  if (state === "failed") parts.push("not complete");
  if (finish === "length") parts.push("ended at the token limit");
  const tokens = usage?.completion_tokens;
  if (tokens !== undefined) {
    parts.push(`${tokens} ${tokens === 1 ? "token" : "tokens"}`);
    const seconds = (ended - began) / 1000;
    if (tokens > 1 && seconds > 0) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    if (cached > 0) parts.push(`${cached} of ${usage.prompt_tokens} prompt tokens cached`);
  }
  return parts.join(" · ");
}
