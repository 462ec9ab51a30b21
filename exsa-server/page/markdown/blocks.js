// Markdown split into blocks. Each has its `source`, by which an unchanged block is recognized while a text grows.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** The blocks of a text. */
export function blocks(text) {
  const lines = text.split("\n");
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === "") {
      at += 1;
      continue;
    }
    const block = read(lines, at);
    found.push({ ...block, source: lines.slice(at, block.end).join("\n") });
    at = block.end;
  }
  return found;
}

function read(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return codeBlock(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", level: heading[1].length, text: heading[2], end: at + 1 };
  if (RULE.test(line)) return { kind: "rule", end: at + 1 };
  if (QUOTE.test(line)) return quote(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "") && lines[at + 1].includes("-")) return table(lines, at);
  return paragraph(lines, at);
}

/** Code to its closing fence, or to the end while it is still being written. */
function codeBlock(lines, at, [, fence, language]) {
  let end = at + 1;
  while (end < lines.length && !(lines[end].trim().startsWith(fence) && /^[`~]+\s*$/.test(lines[end].trim()))) end += 1;
  const code = lines.slice(at + 1, end).join("\n");
  return { kind: "code", language, code, end: Math.min(end + 1, lines.length) };
}

function quote(lines, at) {
  let end = at;
  const inner = [];
  while (end < lines.length && QUOTE.test(lines[end])) {
    inner.push(QUOTE.exec(lines[end])[1]);
    end += 1;
  }
  return { kind: "quote", text: inner.join("\n"), end };
}

/** Items with the indented lines below them; an item's text is Markdown again. */
function list(lines, at) {
  const [, indent, first] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    const line = lines[end];
    const depth = /^\s*/.exec(line)[0].length;
    if (item && depth <= indent.length + 1 && /\d/.test(item[2]) === ordered) {
      items.push({ text: [item[3]], inset: line.length - item[3].length });
    } else if (line.trim() === "") {
      const next = lines.slice(end + 1).find((other) => other.trim() !== "");
      const goesOn = next !== undefined && (/^\s{2,}/.test(next) || (ITEM.test(next) && /^\s*\d/.test(next) === ordered));
      if (!goesOn) break;
      items.at(-1).text.push("");
    } else if (depth > indent.length + 1 || !interrupts(line)) {
      items.at(-1).text.push(line.slice(Math.min(depth, items.at(-1).inset)));
    } else {
      break;
    }
    end += 1;
  }
  const start = ordered ? Number.parseInt(first, 10) : null;
  return { kind: "list", ordered, start, items: items.map((item) => item.text.join("\n")), end };
}

function table(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && lines[end].trim() !== "") end += 1;
  return { kind: "table", head: cells(lines[at]), rows: lines.slice(at + 2, end).map(cells), end };
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split("|").map((cell) => cell.trim());
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== "" && !interrupts(lines[end])) end += 1;
  return { kind: "paragraph", lines: lines.slice(at, end), end };
}

/** Whether a line begins another block. */
const interrupts = (line) =>
  FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
