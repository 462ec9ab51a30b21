#!/usr/bin/env python3
"""Make the micro encoders that the backends' tests run on, with the vectors and scores that this script computes for them.

  make_encoders.py [--out exsa-backend-candle/tests/data/encoders]

Every model gets two files: NAME.gguf, and NAME.txt with texts as token ids, each followed by its vectors by every
pooling (and its scores), computed here in double precision by the formulas of the models' papers. Weights are random and
reproducible; hyperparameters are odd on purpose, so that a backend that has a usual value built in fails.

Needs: pip install gguf numpy.
"""
import argparse
import math
import os
from dataclasses import dataclass

import gguf
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONTEXT, TYPES = 48, 2
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ["\u2581" + chr(c) for c in range(97, 123)] + \
        [chr(c) for c in range(97, 123)] + ["\u2581cat", "\u2581mat", "\u2581.", "\u2581?"]
TEXTS = [[2, 3], [2, 4, 9, 56, 31, 40, 3], [2] + [(7 * i) % 52 + 4 for i in range(38)] + [3]]


@dataclass(frozen=True)
class Shape:
    arch: str
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 8
    dim: int = 32
    ffn: int = 48
    epsilon: float = 1e-3
    fused_qkv: bool = False
    biases: bool = False
    mlp: str = "ungated"        # or "gated", "fused"
    act: str = "gelu"           # or "tanh", "silu"
    optional: bool = False      # jina: norms of queries and keys, second norm of the attention
    window: int = 0
    base: float = 1e4
    base_window: float = 1e4
    rope_dim: int = 0
    dense: int = 0
    head: str = ""              # "bert", "direct", "jina", "modern"
    pooling: int = 1


MODELS = {
    "bert": Shape("bert", biases=True, head="bert", pooling=2),
    "bert-direct": Shape("bert", layers=1, biases=True, fused_qkv=True, head="direct", pooling=4),
    "nomic-bert": Shape("nomic-bert", fused_qkv=True, mlp="gated", act="silu", base=3000.0, rope_dim=6),
    "jina-bert-v2": Shape("jina-bert-v2", heads=6, kv_heads=6, dim=48, biases=True, mlp="gated", head="jina"),
    "jina-bert-v2-code": Shape("jina-bert-v2", heads=4, biases=True, mlp="fused", optional=True),
    "modern-bert": Shape("modern-bert", layers=4, fused_qkv=True, mlp="fused", window=10, base=16000.0,
                         base_window=500.0, head="modern"),
    "modern-bert-silu": Shape("modern-bert", layers=2, fused_qkv=True, mlp="fused", act="silu", window=6, pooling=2),
    "gemma-embedding": Shape("gemma-embedding", layers=7, kv_heads=2, head_dim=12, mlp="gated", act="tanh", window=9,
                             base=1e6, base_window=2000.0, dense=40),
}


def layer_norm(x, weight, bias, epsilon):
    mean = x.mean(-1, keepdims=True)
    y = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + epsilon) * weight
    return y if bias is None else y + bias


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + epsilon) * weight


def erf_gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


ACTIVATIONS = {
    "gelu": erf_gelu,
    "tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def rotate(x, base, dims):
    """RoPE with pairs i and i + dims / 2; x is [tokens, heads, head_dim]."""
    half = dims // 2
    angles = np.arange(x.shape[0])[:, None] * base ** (-np.arange(half) * 2.0 / dims)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b, rest = x[..., :half], x[..., half:dims], x[..., dims:]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos, rest], -1)


def alibi_slopes(heads):
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]


def is_local(shape, layer):
    if not shape.window:
        return False
    return layer % 3 != 0 if shape.arch == "modern-bert" else layer % 6 != 5


class Encoder:
    """Tensors by name, and the mathematics."""

    def __init__(self, shape, seed):
        self.shape, self.rng, self.tensors = shape, np.random.default_rng(seed), {}
        s = shape
        ln_bias = s.arch in ("bert", "nomic-bert", "jina-bert-v2")
        self.matrix("token_embd.weight", len(WORDS), s.dim, 1.0)
        if s.arch in ("bert", "nomic-bert", "jina-bert-v2"):
            self.matrix("token_types.weight", TYPES, s.dim, 0.5)
        if s.arch == "bert":
            self.matrix("position_embd.weight", CONTEXT, s.dim, 0.5)
        if s.arch != "gemma-embedding":
            self.norm("token_embd_norm", s.dim, ln_bias)
        width, width_kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        for layer in range(s.layers):
            name = f"blk.{layer}."
            if s.fused_qkv:
                self.linear(name + "attn_qkv", width + 2 * width_kv, s.dim, s.biases)
            else:
                for part, rows in (("q", width), ("k", width_kv), ("v", width_kv)):
                    self.linear(f"{name}attn_{part}", rows, s.dim, s.biases)
            self.linear(name + "attn_output", s.dim, width, s.biases)
            if s.optional:
                self.norm(name + "attn_q_norm", width, True)
                self.norm(name + "attn_k_norm", width_kv, True)
                self.norm(name + "attn_norm_2", s.dim, True)
            if s.arch in ("bert", "nomic-bert", "jina-bert-v2"):
                self.norm(name + "attn_output_norm", s.dim, True)
                self.norm(name + "layer_output_norm", s.dim, True)
            else:
                if s.arch != "modern-bert" or layer > 0:
                    self.norm(name + "attn_norm", s.dim, False)
                self.norm(name + "ffn_norm", s.dim, False)
            if s.arch == "gemma-embedding":
                for part, size in (("attn_q_norm", s.head_dim), ("attn_k_norm", s.head_dim),
                                   ("post_attention_norm", s.dim), ("post_ffw_norm", s.dim)):
                    self.norm(name + part, size, False)
            self.linear(name + "ffn_up", s.ffn * (2 if s.mlp == "fused" else 1), s.dim,
                        s.biases and s.mlp == "ungated")
            if s.mlp == "gated":
                self.linear(name + "ffn_gate", s.ffn, s.dim, False)
            self.linear(name + "ffn_down", s.dim, s.ffn, s.biases)
        if s.arch in ("modern-bert", "gemma-embedding"):
            self.norm("output_norm", s.dim, False)
        if s.dense:
            self.linear("dense_2", s.dense, s.dim, False)
            self.linear("dense_3", s.dim, s.dense, False)
        if s.head in ("bert", "modern"):
            self.linear("cls", s.dim, s.dim, s.head == "bert")
        if s.head == "jina":
            self.linear("cls", 1, s.dim, True)
        if s.head == "modern":
            self.norm("cls.norm", s.dim, False)
        if s.head in ("bert", "direct", "modern"):
            self.linear("cls.output", 1, s.dim, True)

    def put(self, name, values):
        self.tensors[name] = values.astype(np.float32)

    def matrix(self, name, rows, columns, scale):
        self.put(name, self.rng.normal(0, scale, (rows, columns)))

    def linear(self, name, rows, columns, bias):
        self.matrix(name + ".weight", rows, columns, 1.5 / math.sqrt(columns))
        if bias:
            self.put(name + ".bias", self.rng.normal(0, 0.3, rows))

    def norm(self, name, size, bias):
        self.put(name + ".weight", 1 + self.rng.normal(0, 0.2, size))
        if bias:
            self.put(name + ".bias", self.rng.normal(0, 0.2, size))

    def get(self, name):
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.astype(np.float64)

    def project(self, name, x):
        bias = self.get(name + ".bias")
        y = x @ self.get(name + ".weight").T
        return y if bias is None else y + bias

    def normed(self, name, x):
        weight, bias = self.get(name + ".weight"), self.get(name + ".bias")
        if weight is None:
            return x
        if self.shape.arch == "gemma-embedding":
            return rms_norm(x, weight, self.shape.epsilon)
        return layer_norm(x, weight, bias, self.shape.epsilon)

    def attention(self, layer, x):
        s, name = self.shape, f"blk.{layer}."
        n, width, width_kv = len(x), s.heads * s.head_dim, s.kv_heads * s.head_dim
        if s.fused_qkv:
            q, k, v = np.split(self.project(name + "attn_qkv", x), [width, width + width_kv], -1)
        else:
            q, k, v = (self.project(f"{name}attn_{part}", x) for part in "qkv")
        if s.optional:
            q, k = self.normed(name + "attn_q_norm", q), self.normed(name + "attn_k_norm", k)
        q, k, v = (m.reshape(n, -1, s.head_dim) for m in (q, k, v))
        if s.arch == "gemma-embedding":
            q, k = self.normed(name + "attn_q_norm", q), self.normed(name + "attn_k_norm", k)
        local = is_local(s, layer)
        if s.arch in ("nomic-bert", "modern-bert", "gemma-embedding"):
            base, dims = (s.base_window if local else s.base), s.rope_dim or s.head_dim
            q, k = rotate(q, base, dims), rotate(k, base, dims)
        distance = np.abs(np.arange(n)[:, None] - np.arange(n)[None])
        slopes = alibi_slopes(s.heads) if s.arch == "jina-bert-v2" else [0] * s.heads
        heads = []
        for head in range(s.heads):
            kv = head // (s.heads // s.kv_heads)
            scores = q[:, head] @ k[:, kv].T / math.sqrt(s.head_dim) - slopes[head] * distance
            if local:
                scores = np.where(distance > s.window // 2, -np.inf, scores)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, kv])
        return self.project(name + "attn_output", np.concatenate(heads, -1))

    def mlp(self, layer, x):
        s, name, act = self.shape, f"blk.{layer}.", ACTIVATIONS[self.shape.act]
        up = self.project(name + "ffn_up", x)
        if s.mlp == "gated":
            up = act(self.project(name + "ffn_gate", x)) * up
        elif s.mlp == "fused":
            up = act(up[:, :s.ffn]) * up[:, s.ffn:]
        else:
            up = act(up)
        return self.project(name + "ffn_down", up)

    def states(self, tokens):
        s = self.shape
        x = self.get("token_embd.weight")[tokens]
        if s.arch == "gemma-embedding":
            x = x * math.sqrt(s.dim)
        if "token_types.weight" in self.tensors:
            x = x + self.get("token_types.weight")[0]
        if s.arch == "bert":
            x = x + self.get("position_embd.weight")[:len(tokens)]
        x = self.normed("token_embd_norm", x)
        for layer in range(s.layers):
            name = f"blk.{layer}."
            if s.arch in ("modern-bert", "gemma-embedding"):
                x = x + self.normed(name + "post_attention_norm",
                                    self.attention(layer, self.normed(name + "attn_norm", x)))
                x = x + self.normed(name + "post_ffw_norm", self.mlp(layer, self.normed(name + "ffn_norm", x)))
            else:
                y = self.normed(name + "attn_output_norm", self.attention(layer, x) + x)
                if s.optional:
                    y = self.normed(name + "attn_norm_2", y + x)
                x = self.normed(name + "layer_output_norm", self.mlp(layer, y) + y)
        return self.normed("output_norm", x)

    def vectors(self, tokens):
        s, x = self.shape, self.states(tokens)
        pooled = {"mean": x.mean(0), "first": x[0], "last": x[-1]}
        result = dict(pooled)
        if s.dense:
            result = {k: self.project("dense_3", self.project("dense_2", v)) for k, v in pooled.items()}
        if s.head:
            y = pooled["mean" if s.arch == "modern-bert" else "first"]
            if s.head != "direct":
                y = self.project("cls", y)
                y = erf_gelu(y) if s.arch == "modern-bert" else np.tanh(y)
            if s.head == "modern":
                y = layer_norm(y, self.get("cls.norm.weight"), None, s.epsilon)
            result["rank"] = y if s.head == "jina" else self.project("cls.output", y)
        return result

    def write(self, path):
        s = self.shape
        w = gguf.GGUFWriter(path, s.arch)
        key = lambda name: f"{s.arch}.{name}"
        for name, value in (("context_length", CONTEXT), ("embedding_length", s.dim), ("block_count", s.layers),
                            ("feed_forward_length", s.ffn), ("attention.head_count", s.heads),
                            ("pooling_type", s.pooling)):
            w.add_uint32(key(name), value)
        if s.kv_heads != s.heads:
            w.add_uint32(key("attention.head_count_kv"), s.kv_heads)
        if s.head_dim * s.heads != s.dim:
            w.add_uint32(key("attention.key_length"), s.head_dim)
            w.add_uint32(key("attention.value_length"), s.head_dim)
        rms = "_rms" if s.arch == "gemma-embedding" else ""
        w.add_float32(key(f"attention.layer_norm{rms}_epsilon"), s.epsilon)
        w.add_bool(key("attention.causal"), False)
        if s.arch in ("nomic-bert", "modern-bert", "gemma-embedding"):
            w.add_float32(key("rope.freq_base"), s.base)
            if s.window:
                w.add_float32(key("rope.freq_base_swa"), s.base_window)
            if s.rope_dim:
                w.add_uint32(key("rope.dimension_count"), s.rope_dim)
        if s.window:
            w.add_uint32(key("attention.sliding_window"), s.window)
        if s.arch == "modern-bert" and s.act == "silu":
            w.add_string(key("hidden_activation"), "silu")
        if s.dense:
            w.add_uint32(key("dense_2_feat_in"), s.dim)
            w.add_uint32(key("dense_2_feat_out"), s.dense)
            w.add_uint32(key("dense_3_feat_in"), s.dense)
            w.add_uint32(key("dense_3_feat_out"), s.dim)
        w.add_tokenizer_model("bert")
        w.add_token_list(WORDS)
        w.add_token_types([3, 2, 3, 3] + [1] * (len(WORDS) - 4))
        w.add_uint32("tokenizer.ggml.token_type_count", TYPES)
        for name, token in (("padding", 0), ("unknown", 1), ("bos", 2), ("cls", 2), ("eos", 3), ("seperator", 3)):
            w.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
        for name, values in self.tensors.items():
            w.add_tensor(name, values)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=os.path.join(ROOT, "exsa-backend-candle/tests/data/encoders"))
    out = parser.parse_args().out
    os.makedirs(out, exist_ok=True)
    for seed, (name, shape) in enumerate(MODELS.items()):
        encoder = Encoder(shape, seed)
        encoder.write(os.path.join(out, name + ".gguf"))
        with open(os.path.join(out, name + ".txt"), "w") as file:
            for text in TEXTS:
                print("text", *text, file=file)
                for pooling, vector in encoder.vectors(text).items():
                    print(pooling, *(f"{x:.7g}" for x in vector), file=file)
        print(name)


if __name__ == "__main__":
    main()
