// The streamed answer for screen readers: whole sentences at intervals, since every token would be too much.

import { byId, el } from "../dom.js";

const INTERVAL_MS = 1500;
/** Sentences that stay in the log. */
const KEPT = 10;

export class Announcer {
  #node = byId("announcer");
  #said = 0;
  #last = 0;

  /** Begins another answer. */
  begin() {
    this.#said = 0;
    this.#last = performance.now();
  }

  /** Says the sentences of `text` that are complete and not said yet. */
  grow(text) {
    if (performance.now() - this.#last < INTERVAL_MS) return;
    const fresh = text.slice(this.#said);
    const end = Math.max(fresh.lastIndexOf(". "), fresh.lastIndexOf("! "), fresh.lastIndexOf("? "), fresh.lastIndexOf("\n"));
    if (end < 0) return;
    this.#say(fresh.slice(0, end + 1));
    this.#said += end + 1;
  }

  /** Says the rest of `text`, and `remark`. */
  end(text, remark) {
    this.#say(text.slice(this.#said));
    this.#said = text.length;
    this.#say(remark);
  }

  #say(text) {
    this.#last = performance.now();
    if (text.trim() === "") return;
    this.#node.append(el("p", { text: text.trim() }));
    while (this.#node.childNodes.length > KEPT) this.#node.firstChild.remove();
  }
}
