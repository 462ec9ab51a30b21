// Figures in words.

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count: 12,345. */
export const count = (value) => WHOLE.format(value);

/** A large count in short: 135M. */
export const short = (value) => SHORT.format(value);

/** A rate: 12.3, and from 100 on 123. */
export const rate = (value) => (value < 100 ? NUMBER : WHOLE).format(value);

/** A share of 0 to 1 in percent. */
export const percent = (share) => `${WHOLE.format(share * 100)} %`;

/** Seconds in a fitting unit. */
export function time(seconds) {
  if (seconds === null) return "–";
  if (seconds < 0.001) return `${NUMBER.format(seconds * 1e3)} ms`;
  if (seconds < 1) return `${WHOLE.format(seconds * 1e3)} ms`;
  return `${NUMBER.format(seconds)} s`;
}

/** Bytes in a fitting unit. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [size, unit] = [value, 0];
  while (size >= 1024 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${(size < 10 && unit > 0 ? NUMBER : WHOLE).format(size)} ${units[unit]}`;
}

/** Seconds in whole units. */
export const duration = (seconds) =>
  seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
