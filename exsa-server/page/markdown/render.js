// Markdown as elements. Texts of models become text nodes alone, never HTML.

import { copyButton, el } from "../dom.js";
import { blocks } from "./blocks.js";
import { inline } from "./inline.js";

/** Depth of nested lists and quotes that is rendered; deeper text becomes a paragraph. */
const DEPTH_MAX = 6;

/** Shows a growing text: blocks that did not change keep their elements. */
export class Markdown {
  #sources = [];

  constructor(node) {
    this.node = node;
  }

  /** Shows `text` in place of the text before. */
  show(text) {
    const found = blocks(text);
    let same = 0;
    while (same < found.length && found[same].source === this.#sources[same]) same += 1;
    while (this.node.childNodes.length > same) this.node.lastChild.remove();
    for (const block of found.slice(same)) this.node.append(element(block, 0));
    this.#sources = found.map((block) => block.source);
  }
}

const inner = (text, depth) =>
  depth < DEPTH_MAX ? blocks(text).map((block) => element(block, depth + 1)) : [el("p", { text })];

function element(block, depth) {
  switch (block.kind) {
    case "code":
      return code(block);
    case "heading":
      // The headings of the page are above those of an answer.
      return el(`h${Math.min(block.level + 2, 6)}`, {}, inline(block.text));
    case "rule":
      return el("hr");
    case "quote":
      return el("blockquote", {}, inner(block.text, depth));
    case "list":
      return list(block, depth);
    case "table":
      return table(block);
    default:
      return paragraph(block);
  }
}

function code({ language, code }) {
  const name = language || "code";
  const pre = el("pre", { tabindex: "0", role: "region", "aria-label": `${name} block` }, el("code", { text: code }));
  const head = el("div", { class: "code-head" }, el("span", { text: name }), copyButton(() => code));
  return el("div", { class: "code-block" }, head, pre);
}

function list({ ordered, start, items }, depth) {
  const item = (text) => {
    const [first, ...rest] = inner(text, depth);
    // An item of one paragraph is a line, without the space around paragraphs.
    const tight = first?.tagName === "P" && !text.includes("\n\n");
    return el("li", {}, tight ? [...first.childNodes] : first, rest);
  };
  const properties = ordered && start !== 1 ? { start } : {};
  return el(ordered ? "ol" : "ul", properties, items.map(item));
}

function table({ head, rows }) {
  const columns = head.map((text) => el("th", { scope: "col" }, inline(text)));
  const row = (texts) => el("tr", {}, head.map((_, index) => el("td", {}, inline(texts[index] ?? ""))));
  const content = el("table", {}, el("thead", {}, el("tr", {}, columns)), el("tbody", {}, rows.map(row)));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, content);
}

function paragraph({ lines }) {
  const nodes = lines.flatMap((line, index) => {
    const text = inline(line.trim());
    return index === 0 ? text : [line.startsWith("  ") || lines[index - 1].endsWith("  ") ? el("br") : "\n", ...text];
  });
  return el("p", {}, nodes);
}
