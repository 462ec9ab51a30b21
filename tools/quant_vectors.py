"""Writes exsa-quant/tests/data/dequantize.txt: checksums of dequantized random blocks, computed by the Python package
`gguf` (pip install gguf numpy), whose code is independent of Exsa and of ggml's C. Types that the package lacks (Q1_0 and
Q2_0) are dequantized by ggml, with the program built from tools/ggml_quantize.c.

    python3 tools/quant_vectors.py GGML_QUANTIZE > exsa-quant/tests/data/dequantize.txt

With --all, ggml dequantizes all types; the output is the same.

A line per type: its name, the number of blocks, the bytes of a block whose bit 6 is cleared so that floating-point
fields are finite, and the CRC-32 of all values as little-endian f32. The blocks are the bytes of SplitMix64 seeded with
the type's number.
"""

import os
import subprocess
import sys
import tempfile
import zlib

import gguf
import numpy

BLOCKS = 256

# Last byte of each floating-point field.
FINITE = {
    "F16": [1], "BF16": [1], "Q4_0": [1], "Q4_1": [1, 3], "Q5_0": [1], "Q5_1": [1, 3], "Q8_0": [1],
    "Q2_K": [81, 83], "Q3_K": [109], "Q4_K": [1, 3], "Q5_K": [1, 3], "Q6_K": [209],
    "IQ2_XXS": [1], "IQ2_XS": [1], "IQ2_S": [1], "IQ3_XXS": [1], "IQ3_S": [1], "IQ1_S": [1], "IQ1_M": [55],
    "IQ4_NL": [1], "IQ4_XS": [1], "TQ1_0": [53], "TQ2_0": [65], "MXFP4": [], "NVFP4": [], "Q1_0": [1], "Q2_0": [1],
}


def splitmix64(seed, count):
    state = (seed + (numpy.arange(1, count // 8 + 2, dtype=numpy.uint64)) * numpy.uint64(0x9E3779B97F4A7C15))
    z = (state ^ (state >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return (z ^ (z >> numpy.uint64(31))).view(numpy.uint8)[:count].copy()


# Types that the package lacks: number and bytes of a block.
LACKING = {"Q1_0": (41, 18), "Q2_0": (42, 18)}


def by_ggml(program, number, blocks):
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "blocks"), os.path.join(folder, "values")
        blocks.tofile(source)
        subprocess.run([program, str(number), source, target], check=True)
        return numpy.fromfile(target, numpy.float32)


def main(program, all_by_ggml):
    for name, finite in FINITE.items():
        dtype = getattr(gguf.GGMLQuantizationType, name, None)
        number, block_bytes = LACKING[name] if name in LACKING else (dtype.value, gguf.GGML_QUANT_SIZES[dtype][1])
        blocks = splitmix64(numpy.uint64(number), BLOCKS * block_bytes).reshape(1, BLOCKS, block_bytes)
        blocks[:, :, finite] &= 0xBF
        rows = blocks.reshape(1, -1)
        if name in LACKING or all_by_ggml:
            values = by_ggml(program, number, rows)
        else:
            values = gguf.dequantize(rows.view(numpy.float16) if name == "F16" else rows, dtype).astype(numpy.float32)
        text = ",".join(map(str, finite)) or "-"
        print(name, BLOCKS, text, f"{zlib.crc32(values.tobytes()):08x}")


if __name__ == "__main__":
    with numpy.errstate(over="ignore"):
        main(sys.argv[1], "--all" in sys.argv)
