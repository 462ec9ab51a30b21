// Inline Markdown: code, bold, italic, strikethrough, links.

import { el } from "../dom.js";

/** Depth of nested emphasis that is rendered; deeper text stays as written. */
const DEPTH_MAX = 8;

/** Distance in which a closing mark is searched, which bounds the time for texts full of open marks. */
const REACH = 2000;

const EMPHASIS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];

/** The nodes of a line of text. */
export function inline(text, depth = 0) {
  const nodes = [];
  let plain = "";
  const flush = () => {
    if (plain !== "") nodes.push(document.createTextNode(plain));
    plain = "";
  };
  let at = 0;
  while (at < text.length) {
    const found = depth < DEPTH_MAX ? element(text, at, depth) : null;
    if (found === null) {
      plain += text[at];
      at += 1;
    } else {
      flush();
      if (typeof found.node === "string") plain += found.node;
      else nodes.push(found.node);
      at = found.end;
    }
  }
  flush();
  return nodes;
}

/** The element that begins at `at`, and its end. */
function element(text, at, depth) {
  switch (text[at]) {
    case "\\":
      return /[\\`*_~[\]()#+.!|>-]/.test(text[at + 1] ?? "") ? { node: text[at + 1], end: at + 2 } : null;
    case "`":
      return code(text, at);
    case "[":
      return link(text, at, depth);
    case "*":
    case "_":
    case "~":
      return emphasis(text, at, depth);
    default:
      return null;
  }
}

function code(text, at) {
  const fence = /^`+/.exec(text.slice(at))[0];
  const close = find(text, fence, at + fence.length);
  if (close < 0) return null;
  const content = text.slice(at + fence.length, close).replace(/^ (.*) $/, "$1");
  return { node: el("code", { text: content }), end: close + fence.length };
}

function emphasis(text, at, depth) {
  for (const [mark, tag] of EMPHASIS) {
    if (!text.startsWith(mark, at)) continue;
    const begin = at + mark.length;
    // Underscores within words are names, not emphasis.
    if (mark[0] === "_" && /\w/.test(text[at - 1] ?? "")) return null;
    if (/\s/.test(text[begin] ?? " ")) continue;
    const close = closing(text, mark, begin);
    if (close < 0) continue;
    return { node: el(tag, {}, inline(text.slice(begin, close), depth + 1)), end: close + mark.length };
  }
  return null;
}

/** The mark that closes an emphasis: not after a space, and no half of a double mark. */
function closing(text, mark, begin) {
  const reach = text.slice(begin, begin + REACH);
  let close = reach.indexOf(mark, 1);
  while (close > 0) {
    const double = mark.length === 1 && reach[close + 1] === mark;
    if (!double && !/\s/.test(reach[close - 1])) return begin + close;
    close = reach.indexOf(mark, close + (double ? 2 : 1));
  }
  return -1;
}

function find(text, mark, begin) {
  const close = text.slice(begin, begin + REACH).indexOf(mark);
  return close < 0 ? -1 : begin + close;
}

/** Links of the web alone; the host is shown, since the text is the model's choice. */
function link(text, at, depth) {
  const match = /^\[([^\]\n]{1,500})\]\((https?:\/\/[^\s)]{1,2000})\)/.exec(text.slice(at, at + 2600));
  if (match === null || !URL.canParse(match[2])) return null;
  const url = new URL(match[2]);
  const properties = { href: url.href, target: "_blank", rel: "noopener noreferrer" };
  const host = match[1].includes(url.host) ? [] : [el("span", { class: "host", text: ` (${url.host})` })];
  return { node: el("a", properties, inline(match[1], depth + 1), host), end: at + match[0].length };
}
