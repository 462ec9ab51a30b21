#!/usr/bin/env python3
"""Writes exsa-core/src/tokenizer/unicode/tables.rs.

Needs Python 3.13, whose unicodedata holds Unicode 15.1: the version that llama.cpp's tables have, so that both cut
text at the same places. Run it from the project's root.
"""

import sys
import unicodedata

VERSION = "15.1.0"
PATH = "exsa-core/src/tokenizer/unicode/tables.rs"
BITS = {"L": 1, "N": 2, "M": 4, "P": 8, "S": 16, "C": 32}
# The characters with the property White_Space.
SPACES = {*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
SPACE_BIT = 64
HANGUL = range(0xAC00, 0xD7A4)


def classes(code):
    category = unicodedata.category(chr(code))
    bits = 0 if category == "Cn" else BITS.get(category[0], 0)
    return bits | (SPACE_BIT if code in SPACES else 0)


def main():
    if unicodedata.unidata_version != VERSION:
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}, not {VERSION}: use Python 3.13")
    ranges = []
    for code in range(0x110000):
        bits = classes(code)
        if not ranges or ranges[-1] & 0xFF != bits:
            ranges.append(code << 8 | bits)
    bases = []
    for code in range(0x110000):
        first = ord(unicodedata.normalize("NFD", chr(code))[0])
        if first != code and code not in HANGUL:
            bases.append((code, first))
    with open(PATH, "w") as out:
        out.write(
            f"""//! Written by `tools/unicode_tables.py` from the Unicode Character Database, version {VERSION}
//! (copyright Unicode, Inc., Unicode License v3); not to be edited by hand.

/// Runs of characters of one class, ascending and without gaps: `first character << 8 | class bits`.
#[rustfmt::skip]
pub(super) static CLASS_RUNS: [u32; {len(ranges)}] = [
"""
        )
        write_wrapped(out, [f"{r:#x}" for r in ranges])
        out.write(
            f"""];

/// Characters that decompose canonically, ascending, Hangul syllables apart, with the first character of the
/// full decomposition.
#[rustfmt::skip]
pub(super) static BASES: [(u32, u32); {len(bases)}] = [
"""
        )
        write_wrapped(out, [f"({c:#x}, {f:#x})" for c, f in bases])
        out.write("];\n")


def write_wrapped(out, items):
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 110:
            out.write(line + "\n")
            line = "   "
        line += f" {item},"
    out.write(line + "\n")


main()
