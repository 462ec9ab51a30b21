#!/usr/bin/env python3
"""Compare tools/reference.py with llama.cpp, an implementation somebody else wrote, on GGUF files.

  compare_llamacpp.py MODEL.gguf ... [--ids 1,403,407] [--tokens 16]

Per model: the largest and the root-mean-square difference of all logits of the prompt, the spread of the logits, on how
many rows the best token agrees, and whether the greedy continuation does. Without --ids the prompt is the one of
make_test_models.py. llama.cpp keeps K and V in f32 here; on quantized weights it rounds the activations too (to 8 bits),
which the reference does not, so those differences are larger.

Needs: pip install gguf numpy llama-cpp-python (the last one is built from source: a C++ compiler and cmake)
"""
import argparse
import os

import numpy as np
from llama_cpp import Llama

import make_test_models
import reference

KV_F32 = 0      # ggml's number of the type f32


def greedy(llama, ids, tokens):
    llama.reset()
    llama.eval(ids)
    out = []
    for _ in range(tokens):
        out.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(out[-1:])
    return out


def compare(path, ids, tokens):
    model = reference.Reference(path)
    ours = model.logits(ids)
    llama = Llama(path, n_ctx=len(ids) + tokens + 1, n_batch=len(ids), logits_all=True, type_k=KV_F32, type_v=KV_F32,
                  flash_attn=False, n_threads=1, verbose=False)
    llama.eval(ids)
    theirs = np.array(llama.scores[:len(ids)], np.float64)
    difference = np.abs(ours - theirs)
    same = (ours.argmax(-1) == theirs.argmax(-1)).sum()
    ours_next, margins = model.greedy(ids, tokens)
    theirs_next = greedy(llama, ids, tokens)
    agree = next((i for i, (a, b) in enumerate(zip(ours_next, theirs_next)) if a != b), tokens)
    print(f"{os.path.basename(path):22} max {difference.max():.2e} rms {np.sqrt((difference ** 2).mean()):.2e} "
          f"std {ours.std():.2f} best {same}/{len(ids)} greedy {agree}/{tokens} margin {min(margins):.3f}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("models", nargs="+")
    ap.add_argument("--ids", help="token ids of the prompt, separated by commas")
    ap.add_argument("--tokens", type=int, default=16)
    a = ap.parse_args()
    ids = [int(i) for i in a.ids.split(",")] if a.ids else make_test_models.prompt()
    for path in a.models:
        compare(path, ids, a.tokens)


if __name__ == "__main__":
    main()
