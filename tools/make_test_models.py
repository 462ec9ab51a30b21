#!/usr/bin/env python3
"""Make the micro models that the backends' tests run on, with the logits that tools/reference.py computes for them.

  make_test_models.py [--only llama-f32,qwen2-f32] [--out exsa-backend-candle/tests/data]

Every model gets three files: NAME.gguf, NAME.txt (the prompt and what is expected) and NAME.logits (the rows of logits);
the README beside them describes the layout. Weights are random and reproducible. Their seeds are the first ones whose
greedy continuation is decided by a clear margin at every step, so that a correct backend cannot differ in it.

The hyperparameters are odd on purpose (eps 1e-3, soft-caps 5 and 10, heads * head_dim mostly other than the width, a window of 32
tokens): a backend that has a usual value built in, or reads the wrong key, fails.

Needs: pip install gguf numpy; make_gguf.py and the stories260K vocabulary in the optional test data (environment
variable EXSA_TEST_DATA, else ../shared beside the project's root).
"""
import argparse
import math
import os
import sys
from dataclasses import dataclass

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

import reference

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.environ.get("EXSA_TEST_DATA") or os.path.join(os.path.dirname(ROOT), "shared")
sys.path.insert(0, os.path.join(DATA, "tools"))
import make_gguf  # noqa: E402  (found through DATA)

CONTEXT, WINDOW, PROMPT_TOKENS = 256, 32, 80
ROWS = [0, 1, 31, 32, 33, 40, PROMPT_TOKENS - 1]
LOGITS_STD = 2.0            # of the random logits; also keeps float32 noise far below the margins
SPECIAL = (0, 1, 2)         # unknown, BOS, EOS: a continuation that meets one would end early in an engine


@dataclass(frozen=True)
class Shape:
    arch: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    dim: int = 48
    ffn: int = 96
    rope_base: float = 1e4
    rope_dim: int = 0           # 0: head_dim
    tied: bool = True
    biases: tuple = ()          # of the attention: "q", "k", "v", "output"
    rope_freqs: bool = False    # with the divisors of Llama 3, for an original context of 64 tokens
    rope_linear: float = 0.0    # linear position scaling
    window: int = 0             # of layers that have one
    pattern: tuple = ()         # which layers have one; empty: by the architecture
    conv: tuple = ()            # layers with a short convolution instead of attention
    conv_tokens: int = 3        # that it sees
    delta: tuple = ()           # heads of keys, heads of values and their size in gated delta nets, three of four layers
    experts: int = 0            # of a layer; 0: none
    used: int = 0               # of a token
    expert_ffn: int = 0         # 0: ffn
    shared_ffn: int = 0         # of the expert of all tokens; 0: none
    dense_layers: int = 0       # before the first one with experts
    groups: tuple = ()          # of experts, and those of a token
    selection_bias: bool = False
    yarn: float = 0.0           # YaRN to so many times an original context of 64 tokens


LLAMA = Shape("llama", 2, 4, 2, 16)
ARCHITECTURES = {
    "llama": LLAMA,
    "llama3": Shape("llama", 2, 4, 2, 16, dim=32, rope_base=5e5, tied=False, rope_freqs=True),
    "llama-bias": Shape("llama", 1, 4, 4, 16, biases=("q", "k", "v", "output")),
    "qwen2": Shape("qwen2", 2, 6, 2, 8, rope_base=1e6, biases=("q", "k", "v")),
    "qwen3": Shape("qwen3", 2, 4, 1, 24, rope_base=1e6),
    "gemma2": Shape("gemma2", 4, 4, 2, 16, dim=32),
    "gemma3": Shape("gemma3", 7, 4, 1, 16, dim=32, ffn=64, rope_base=1e6, rope_linear=8.0),
    "phi3": Shape("phi3", 2, 3, 1, 16, rope_dim=12, tied=False),
    "granite": Shape("granite", 2, 4, 2, 16),
    "smollm3": Shape("smollm3", 5, 4, 2, 16, dim=32, ffn=64, rope_base=5e6),
    "olmo2": Shape("olmo2", 2, 3, 1, 16, rope_base=5e5, tied=False),
    "olmo3": Shape("olmo2", 4, 2, 1, 16, dim=32, ffn=64, tied=False, rope_linear=8.0, window=WINDOW,
                   pattern=(True, False, True, True)),
    "glm4": Shape("glm4", 2, 4, 2, 16, rope_dim=8, biases=("q", "k", "v"), tied=False),
    "exaone4": Shape("exaone4", 2, 3, 1, 16, rope_base=1e6),
    # llama.cpp gives windows to the model of 64 layers alone
    "exaone4-64": Shape("exaone4", 64, 2, 1, 8, dim=16, ffn=16, rope_base=1e6, tied=False, window=WINDOW),
    "command-r": Shape("command-r", 2, 3, 1, 16, biases=("q", "k", "v")),
    "cohere2": Shape("cohere2", 4, 4, 2, 8, dim=32, ffn=64, rope_base=5e4, window=WINDOW),
    "starcoder2": Shape("starcoder2", 2, 6, 2, 8, rope_base=1e5, tied=False, biases=("q", "k", "v", "output")),
    "qwen35": Shape("qwen35", 4, 4, 2, 12, rope_dim=8, rope_base=1e6, delta=(2, 4, 8), conv_tokens=4),
    "lfm2": Shape("lfm2", 4, 4, 2, 12, rope_base=1e6, conv=(0, 1, 3), conv_tokens=4),
    "mixtral": Shape("llama", 2, 4, 2, 16, dim=32, ffn=40, experts=4, used=2),
    "qwen3moe": Shape("qwen3moe", 2, 4, 1, 24, dim=32, rope_base=1e6, experts=9, used=3, expert_ffn=24),
    "qwen2moe": Shape("qwen2moe", 2, 4, 2, 8, dim=32, rope_base=1e6, biases=("q", "k", "v"), tied=False, experts=6, used=2,
                      expert_ffn=24, shared_ffn=40),
    "olmoe": Shape("olmoe", 2, 2, 2, 16, dim=32, ffn=24, tied=False, experts=8, used=3),
    "granitemoe": Shape("granitemoe", 2, 4, 2, 16, dim=32, ffn=24, experts=6, used=2, shared_ffn=40),
    "gpt-oss": Shape("gpt-oss", 2, 4, 2, 16, dim=32, rope_base=1.5e5, biases=("q", "k", "v", "output"), tied=False,
                     window=WINDOW, experts=4, used=2, expert_ffn=24, yarn=4.0),
    "glm4moe": Shape("glm4moe", 2, 4, 2, 16, dim=32, ffn=64, rope_dim=8, rope_base=1e6, biases=("q", "k", "v"), tied=False,
                     experts=8, used=3, expert_ffn=20, shared_ffn=40, dense_layers=1, groups=(4, 2), selection_bias=True),
    "ernie4_5-moe": Shape("ernie4_5-moe", 2, 4, 2, 16, dim=32, ffn=64, rope_base=5e5, experts=6, used=2, expert_ffn=24,
                          shared_ffn=40, dense_layers=1, selection_bias=True),
}
BLOCKS_OF_32 = Shape("llama", 2, 4, 2, 16, dim=64)                      # rows are multiples of 32
BLOCKS_OF_256 = Shape("llama", 1, 8, 1, 32, dim=256, ffn=256)           # rows are multiples of 256
QUANTIZED_EXPERTS = Shape("qwen3moe", 2, 2, 1, 32, dim=64, experts=6, used=2, expert_ffn=32)
MXFP4_EXPERTS = Shape("gpt-oss", 2, 2, 1, 32, dim=64, rope_base=1.5e5, biases=("q", "k", "v", "output"), tied=False,
                      window=WINDOW, experts=4, used=2, expert_ffn=32, yarn=4.0)
MODELS = {f"{name}-f32": (shape, "f32") for name, shape in ARCHITECTURES.items()}
MODELS |= {f"llama-{t}": (BLOCKS_OF_32, t) for t in ("f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")}
MODELS |= {f"llama-{t}": (BLOCKS_OF_256, t) for t in ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q4_k_m")}

MODELS |= {"qwen3moe-q8_0": (QUANTIZED_EXPERTS, "q8_0"), "gpt-oss-mxfp4": (MXFP4_EXPERTS, "mxfp4")}
# Between a chosen expert and the next: rounding must not decide, of f32 or of activations of 8 bits.
GAP_MIN, GAP_MIN_8_BITS = 0.003, 0.01


def write_model(path, shape, kind, seed, vocab):
    """Write random weights in the shape; kind is a type of make_gguf.TYPES, "q4_k_m", or "mxfp4" of experts alone."""
    s, arch, mixed = shape, shape.arch, kind == "q4_k_m"
    main_type = T.F32 if kind == "mxfp4" else make_gguf.TYPES["q4_k" if mixed else kind]
    gemma = arch in ("gemma2", "gemma3")
    layer_norm, pre_norms = arch in reference.LAYER_NORM, arch not in reference.NO_PRE_NORMS
    blocks = make_gguf.Blocks(seed)
    w = gguf.GGUFWriter(path, arch)
    w.add_name(f"micro-{os.path.splitext(os.path.basename(path))[0]}")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(s.dim)
    w.add_block_count(s.layers)
    w.add_feed_forward_length(s.ffn)
    w.add_head_count(s.heads)
    w.add_head_count_kv([0 if i in s.conv else s.kv_heads for i in range(s.layers)] if s.conv else s.kv_heads)
    if s.delta:
        keys, values, size = s.delta
        w.add_ssm_conv_kernel(s.conv_tokens)
        w.add_ssm_inner_size(values * size)
        w.add_ssm_state_size(size)
        w.add_ssm_time_step_rank(values)
        w.add_ssm_group_count(keys)
        w.add_rope_dimension_sections([2, 1, 1, 0])
    if s.conv:
        w.add_shortconv_l_cache(s.conv_tokens)
    w.add_key_length(s.head_dim)
    w.add_value_length(s.head_dim)
    w.add_rope_dimension_count(s.rope_dim or s.head_dim)
    w.add_rope_freq_base(s.rope_base)
    (w.add_layer_norm_eps if layer_norm else w.add_layer_norm_rms_eps)(1e-3)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M if mixed else gguf.LlamaFileType.ALL_F32 if main_type == T.F32
                    else gguf.LlamaFileType.GUESSED)
    if arch == "gemma2":
        w.add_attn_logit_softcapping(5.0)
        w.add_final_logit_softcapping(10.0)
    if gemma or s.window:
        w.add_sliding_window(s.window or WINDOW)
    if s.pattern:
        w.add_sliding_window_pattern(list(s.pattern))
    if arch in ("granite", "granitemoe"):
        w.add_embedding_scale(0.5)
        w.add_attention_scale(0.4)
        w.add_residual_scale(0.6)
        w.add_logit_scale(1.5)
    if arch in reference.PARALLEL:
        w.add_logit_scale(0.7)
    if s.experts:
        w.add_expert_count(s.experts)
        w.add_expert_used_count(s.used)
    if s.expert_ffn:
        w.add_expert_feed_forward_length(s.expert_ffn)
    if s.shared_ffn and arch == "glm4moe":
        w.add_expert_shared_count(s.shared_ffn // s.expert_ffn)
    elif s.shared_ffn:
        w.add_expert_shared_feed_forward_length(s.shared_ffn)
    if s.dense_layers:
        w.add_leading_dense_block_count(s.dense_layers)
    if s.groups:
        w.add_expert_group_count(s.groups[0])
        w.add_expert_group_used_count(s.groups[1])
    if arch == "ernie4_5-moe":
        w.add_interleave_moe_layer_step(1)
    if arch == "glm4moe":
        w.add_expert_weights_norm(True)
        w.add_expert_weights_scale(1.7)
    if s.yarn:
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(s.yarn)
        w.add_rope_scaling_orig_ctx_len(64)
    if arch == "phi3":
        w.add_rope_scaling_orig_ctx_len(CONTEXT)
    if s.rope_linear:
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(s.rope_linear)
    n_vocab = make_gguf.copy_tokenizer(w, vocab, 0)
    w.add_vocab_size(n_vocab)

    def vector(name, n, around, spread):
        values = around + spread * blocks._cut(blocks.norm, n)
        w.add_tensor(name, values.astype(np.float32))

    def norm(name, n, around=1.0, spread=0.2):
        """The weights of a norm of the hidden state."""
        vector(name + ".weight", n, around, spread)
        if arch == "starcoder2":
            vector(name + ".bias", n, 0.0, 0.2)

    def matrix(name, rows, cols, gain=1.0, t=None):
        """Random weights that turn inputs of variance 1 into outputs of variance gain squared."""
        t = t or main_type
        block = gguf.GGML_QUANT_SIZES[t][0]
        if cols % block:
            raise SystemExit(f"{name}: rows of {cols} values are no multiple of the {block} of {t.name}")
        data = blocks.draw(t, (rows, cols), gain / math.sqrt(cols))
        w.add_tensor(name, data, raw_dtype=None if t in (T.F32, T.F16) else t)

    def experts(name, rows, cols, gain=1.0):
        """A matrix for each expert, and in gpt-oss biases."""
        t = T.MXFP4 if kind == "mxfp4" else main_type
        if t == T.MXFP4:
            values = gain / math.sqrt(cols) * blocks._cut(blocks.norm, s.experts * rows * cols)
            data = gguf.quants.quantize(values.reshape(s.experts, rows, cols), t)
        else:
            data = blocks.draw(t, (s.experts * rows, cols), gain / math.sqrt(cols))
            data = data.reshape(s.experts, rows, -1)
        w.add_tensor(name + ".weight", data, raw_dtype=None if t in (T.F32, T.F16) else t)
        if arch == "gpt-oss":
            values = 0.3 * blocks._cut(blocks.norm, s.experts * rows)
            w.add_tensor(name + ".bias", values.astype(np.float32).reshape(s.experts, rows))

    def mixture(p):
        ffn = s.expert_ffn or s.ffn
        # Routers are f32 in all files.
        matrix(p + "ffn_gate_inp.weight", s.experts, s.dim, 2.0, T.F32)
        if arch == "gpt-oss":
            vector(p + "ffn_gate_inp.bias", s.experts, 0.0, 0.5)
        if s.selection_bias:
            vector(p + "exp_probs_b.bias", s.experts, 0.0, 0.2)
        experts(p + "ffn_gate_exps", ffn, s.dim, 1.5)
        experts(p + "ffn_up_exps", ffn, s.dim, 1.5)
        experts(p + "ffn_down_exps", s.dim, ffn, 1.5)
        if s.shared_ffn:
            matrix(p + "ffn_gate_shexp.weight", s.shared_ffn, s.dim, 1.5)
            matrix(p + "ffn_up_shexp.weight", s.shared_ffn, s.dim, 1.5)
            matrix(p + "ffn_down_shexp.weight", s.dim, s.shared_ffn)
        if arch == "qwen2moe":
            vector(p + "ffn_gate_inp_shexp.weight", s.dim, 0.0, 0.3)

    # Attention that is neither flat nor a single peak: scores get a standard deviation near 2.
    sharp = 1.4
    high = T.Q6_K if mixed else None
    # Gemma scales its embeddings up: small ones keep a tied head from just repeating the last token.
    embedding_gain = 0.4 if gemma else LOGITS_STD if s.tied else math.sqrt(s.dim)
    matrix("token_embd.weight", n_vocab, s.dim, embedding_gain, high)
    # Many layers of random weights make much of float32 noise: each adds less.
    post_gain = 0.1 if s.layers > 32 else 1.0
    q_rows, kv_rows = s.heads * s.head_dim, s.kv_heads * s.head_dim
    for i in range(s.layers):
        p = f"blk.{i}."
        if pre_norms:
            norm(p + "attn_norm", s.dim)
        attention = i not in s.conv and not (s.delta and i % 4 != 3)
        if i in s.conv:
            matrix(p + "shortconv.in_proj.weight", 3 * s.dim, s.dim, sharp)
            matrix(p + "shortconv.conv.weight", s.dim, s.conv_tokens, 1.0, T.F32)
            matrix(p + "shortconv.out_proj.weight", s.dim, s.dim, 1.0)
        elif s.delta and i % 4 != 3:
            keys, values, size = s.delta
            width = (2 * keys + values) * size
            matrix(p + "attn_qkv.weight", width, s.dim, sharp)
            matrix(p + "attn_gate.weight", values * size, s.dim, sharp)
            matrix(p + "ssm_conv1d.weight", width, s.conv_tokens, 1.0, T.F32)
            matrix(p + "ssm_beta.weight", values, s.dim, sharp)
            matrix(p + "ssm_alpha.weight", values, s.dim, sharp)
            vector(p + "ssm_dt.bias", values, -1.0, 0.5)
            vector(p + "ssm_a", values, -0.6, 0.2)
            vector(p + "ssm_norm.weight", size, 1.0, 0.2)
            matrix(p + "ssm_out.weight", s.dim, values * size, 1.0)
        elif arch == "phi3":
            matrix(p + "attn_qkv.weight", q_rows + 2 * kv_rows, s.dim, sharp)
        else:
            matrix(p + "attn_q.weight", (2 if arch == "qwen35" else 1) * q_rows, s.dim, sharp)
            matrix(p + "attn_k.weight", kv_rows, s.dim, sharp)
            matrix(p + "attn_v.weight", kv_rows, s.dim, 1.0, high)
        for part in s.biases:
            vector(p + f"attn_{part}.bias", {"q": q_rows, "output": s.dim}.get(part, kv_rows), 0.0, 0.5)
        if arch == "gpt-oss":
            vector(p + "attn_sinks.weight", s.heads, 0.5, 1.0)
        if arch in reference.HEAD_NORMS + reference.ALL_HEADS_NORM and attention:
            whole = arch in reference.ALL_HEADS_NORM
            vector(p + "attn_q_norm.weight", q_rows if whole else s.head_dim, sharp, 0.2)
            vector(p + "attn_k_norm.weight", kv_rows if whole else s.head_dim, sharp, 0.2)
        if attention:
            matrix(p + "attn_output.weight", s.dim, q_rows, 2.0)
        if arch in reference.POST_NORMS:
            vector(p + "post_attention_norm.weight", s.dim, post_gain, 0.2 * post_gain)
        if pre_norms and arch not in reference.PARALLEL:
            norm(p + reference.MLP_NORMS.get(arch, "ffn_norm"), s.dim)
        if s.experts and i >= s.dense_layers:
            mixture(p)
            continue
        if arch in ("phi3", "glm4"):
            matrix(p + "ffn_up.weight", 2 * s.ffn, s.dim, 1.5)
        elif arch == "starcoder2":
            matrix(p + "ffn_up.weight", s.ffn, s.dim, 1.5)
            vector(p + "ffn_up.bias", s.ffn, 0.0, 0.2)
            vector(p + "ffn_down.bias", s.dim, 0.0, 0.2)
        else:
            matrix(p + "ffn_gate.weight", s.ffn, s.dim, 1.5)
            matrix(p + "ffn_up.weight", s.ffn, s.dim, 1.5)
        matrix(p + "ffn_down.weight", s.dim, s.ffn, 1.0, high)
        if arch in reference.POST_NORMS:
            vector(p + "post_ffw_norm.weight", s.dim, post_gain, 0.2 * post_gain)
    output_gain = LOGITS_STD / embedding_gain if gemma else 1.0
    norm(reference.OUTPUT_NORMS.get(arch, "output_norm"), s.dim, output_gain, 0.2 * output_gain)
    if not s.tied:
        matrix("output.weight", n_vocab, s.dim, LOGITS_STD, high)
    if s.rope_freqs:
        w.add_tensor("rope_freqs.weight", make_gguf.llama3_rope(s.head_dim, s.rope_base, 32.0, orig=64))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def prompt():
    """BOS and 79 tokens drawn from the whole vocabulary but its specials: bytes, letters and words."""
    ids = np.random.default_rng(1).integers(len(SPECIAL), 512, PROMPT_TOKENS - 1)
    return [1] + [int(i) for i in ids]


def clear_continuation(model, ids, tokens, margin_min, gap_min):
    """The greedy continuation and its smallest margin; None where a step or a choice of experts is too close, or a
    special token comes."""
    out, smallest = [], math.inf
    for _ in range(tokens):
        if model.routing_gap < gap_min:
            return None
        (token,), (margin,) = model.greedy(ids + out, 1)
        if margin < margin_min or token in SPECIAL:
            return None
        out.append(token)
        smallest = min(smallest, margin)
    return (out, smallest) if len(set(out)) >= tokens // 3 else None


def make(name, folder, vocab):
    shape, kind = MODELS[name]
    exact = kind == "f32"
    # A token of a mixture has more to be close in.
    tokens, margin_min = (32, 0.01) if exact else (8, 0.2) if shape.experts else (16, 0.1)
    gap_min = GAP_MIN if exact else GAP_MIN_8_BITS
    base, ids = os.path.join(folder, name), prompt()
    for seed in range(1000):
        write_model(base + ".gguf", shape, kind, seed, vocab)
        model = reference.Reference(base + ".gguf")
        found = clear_continuation(model, ids, tokens, margin_min, gap_min)
        if found:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a clear continuation")
    out, smallest = found
    logits = model.logits(ids)
    logits[ROWS].astype("<f4").tofile(base + ".logits")
    with open(base + ".txt", "w") as f:
        f.write(f"model: {name}.gguf\nlogits: {name}.logits\nseed: {seed}\nvocab: {logits.shape[1]}\n"
                f"prompt: {' '.join(map(str, ids))}\nrows: {' '.join(map(str, ROWS))}\n"
                f"greedy: {' '.join(map(str, out))}\ngreedy_margin_min: {smallest:.6f}\n")
    print(f"{name}: seed {seed}, {os.path.getsize(base + '.gguf')} bytes, logits std {logits[ROWS].std():.2f}, "
          f"smallest margin {smallest:.4f}, {len(set(out))} different tokens of {len(out)}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", help="names separated by commas; default: all")
    ap.add_argument("--out", default=os.path.join(ROOT, "exsa-backend-candle", "tests", "data"))
    ap.add_argument("--vocab", default=os.path.join(DATA, "models", "stories260K-f32.gguf"),
                    help="a GGUF whose tokenizer is copied")
    ap.add_argument("--list", action="store_true")
    a = ap.parse_args()
    if a.list:
        print(*MODELS, sep="\n")
        return
    names = a.only.split(",") if a.only else list(MODELS)
    unknown = [n for n in names if n not in MODELS]
    if unknown:
        ap.error(f"no such model: {', '.join(unknown)}; --list shows them")
    os.makedirs(a.out, exist_ok=True)
    for name in names:
        make(name, a.out, a.vocab)


if __name__ == "__main__":
    main()
