// Small charts, drawn as SVG. Each has a text alternative; colours come from the style sheet.

import { svg } from "../dom.js";

/** A line of at most `slots` values over time; the newest is at the right. */
export function sparkline(values, slots, label) {
  const [width, height, pad] = [240, 44, 2];
  const top = Math.max(...values, 1e-9);
  const step = (width - 2 * pad) / (slots - 1);
  const left = width - pad - (values.length - 1) * step;
  const point = (value, index) => {
    const y = height - pad - (value / top) * (height - 2 * pad);
    return `${(left + index * step).toFixed(1)},${y.toFixed(1)}`;
  };
  const points = values.map(point);
  const area = `${left.toFixed(1)},${height - pad} ${points.join(" ")} ${width - pad},${height - pad}`;
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "sparkline", role: "img", "aria-label": label, preserveAspectRatio: "none" },
    svg("line", { x1: 0, x2: width, y1: height - pad, y2: height - pad, class: "base" }),
    svg("polygon", { points: area, class: "area" }),
    svg("polyline", { points: points.join(" "), class: "line" }),
  );
}

/** Bars of a histogram with buckets `[upper bound or null, count]`, evenly spaced. */
export function histogram(buckets, label) {
  const [width, height] = [320, 90];
  const top = Math.max(...buckets.map(([, value]) => value), 1);
  const step = width / buckets.length;
  const bars = buckets.map(([, value], index) => {
    // A bucket that is not empty stays visible.
    const size = value === 0 ? 0 : Math.max((value / top) * (height - 4), 2);
    const place = { x: (index * step).toFixed(1), y: (height - size).toFixed(1) };
    return svg("rect", { ...place, width: (step * 0.8).toFixed(1), height: size.toFixed(1), class: "bar-fill" });
  });
  const base = svg("line", { x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5, class: "axis" });
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "histogram", role: "img", "aria-label": label, preserveAspectRatio: "none" },
    bars,
    base,
  );
}

/** A horizontal bar of parts `{value, kind}` of a whole. */
export function stackedBar(parts, whole, label) {
  const width = 400;
  let x = 0;
  const rects = parts.map(({ value, kind }) => {
    const size = whole > 0 ? (value / whole) * width : 0;
    const rect = svg("rect", { x: x.toFixed(2), y: 0, width: size.toFixed(2), height: 14, class: `part ${kind}` });
    x += size;
    return rect;
  });
  const properties = { viewBox: `0 0 ${width} 14`, class: "stack", role: "img", "aria-label": label, preserveAspectRatio: "none" };
  return svg("svg", properties, rects);
}
