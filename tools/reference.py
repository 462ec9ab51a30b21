#!/usr/bin/env python3
"""A plain NumPy forward pass over a GGUF file in float64: the reference that Exsa's backends are checked against.

It favours being obviously right over being fast: no KV cache, one function per formula, every weight dequantized
to float64. It shares nothing with the Rust code.

  reference.py logits --model M.gguf --ids 1,403,407 [--rows 0,2] [--top 5]     the best tokens of the rows
  reference.py greedy --model M.gguf --ids 1 --tokens 199                       ids and text of the greedy continuation
  reference.py greedy --model M.gguf --prompt "Once upon a time" --tokens 64    the same from a text (SPM vocabularies)

Architectures: llama, qwen2, qwen3, gemma2, gemma3, phi3, granite, smollm3, olmo2, glm4, exaone4, command-r, cohere2,
starcoder2, lfm2, qwen35, and the mixtures of experts llama (Mixtral), qwen3moe, qwen2moe, olmoe, granitemoe, gpt-oss,
glm4moe, ernie4_5-moe. What they share and where they differ:

  all      pre-norm RMSNorm (Zhang & Sennrich 2019), grouped-query attention (Ainslie et al. 2023), RoPE (Su et al. 2021),
           gated feed-forward (Shazeer 2020), output head tied to the embeddings where output.weight is absent
  llama    RoPE turns adjacent pairs (2i, 2i+1); every other architecture turns halves (i, i + n/2)
  qwen2    biases on q, k and v (any architecture may carry biases here; these always do)
  qwen3    RMSNorm over each head of q and k before RoPE
  gemma2   embeddings times sqrt(d); norms also after attention and feed-forward, before the residual sum; tanh-GELU;
           attention and final logits soft-capped; layers 0, 2, 4, ... see a sliding window
  gemma3   as gemma2 with q/k norms and without soft-caps; five layers with a window and RoPE base 10,000, then one with
           full attention and the RoPE base (and linear scaling) of the metadata
  phi3     q, k, v in one matrix; gate and up in one matrix, gate first
  granite  as llama with factors on embeddings, attention scores, and the outputs of attention and feed-forward; logits divided
  smollm3  as llama; every fourth layer has no RoPE
  olmo2    norms after attention and feed-forward and none before; RMSNorm over all heads of q (of k) at once; with a window,
           three of four layers have it and plain RoPE, the fourth has the RoPE scaling of the metadata
  glm4     norms before and after; RoPE turns adjacent pairs of the first values of a head; gate and up in one matrix
  exaone4  norms after and none before; q/k norms; with a window, three of four layers have it and only these have RoPE
  command-r  attention and feed-forward both read one LayerNorm (Ba et al. 2016) without bias of the layer's input, and both
           are added to it; RoPE turns adjacent pairs; logits multiplied by a factor
  cohere2  as command-r; three of four layers have a window and RoPE, the fourth has neither
  lfm2     as qwen3; layers with 0 heads of keys instead have a gated convolution over the last tokens of each channel
  qwen35   as qwen3; every fourth layer has attention, whose output is multiplied by the sigmoid of a gate that lies beside the
           queries, head by head; the others a gated delta net (Yang et al. 2024)
  starcoder2  LayerNorm with bias, biases everywhere, feed-forward without a gate: down(gelu(up(x)))

  experts  a router scores all experts, a token goes through the best few, and the sum of their outputs is weighted by their
           scores: the softmax over all experts, divided by its sum over the chosen ones, where nothing else is said
  qwen2moe as qwen2; weights are not divided; one more expert sees all tokens, times the sigmoid of a projection
  olmoe    norms before, RMSNorm over all heads of q (of k) at once; weights are not divided
  granitemoe  as granite, with one more expert for all tokens
  gpt-oss  weights are the softmax over the chosen scores; biases everywhere; up and gate clamped to 7, swish(1.702 gate) times
           up + 1; every second layer has a window; a sink for each head in the softmax of attention; YaRN (Peng et al. 2023)
  glm4moe  dense layers first; sigmoid scores, experts chosen with a bias on them, from the groups with the best pairs; weights
           times a factor; one more expert for all tokens; q/k norms
  ernie4_5-moe  RoPE turns adjacent pairs; dense layers first; a bias for the choice; one more expert for all tokens

The +1 that Gemma adds to its norm weights is already in the weights of a GGUF file.

Needs: pip install gguf numpy
"""
import argparse
import math
import sys

import gguf
import numpy as np

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "granite", "smollm3", "olmo2", "glm4", "exaone4",
                 "command-r", "cohere2", "starcoder2", "lfm2", "qwen35", "qwen3moe", "qwen2moe", "olmoe", "granitemoe", "gpt-oss",
                 "glm4moe", "ernie4_5-moe")
ADJACENT_PAIRS = ("llama", "granite", "smollm3", "glm4", "command-r", "cohere2", "granitemoe", "ernie4_5-moe")
LAYER_NORM = ("command-r", "cohere2", "starcoder2")
PARALLEL = ("command-r", "cohere2")
POST_NORMS = ("gemma2", "gemma3", "olmo2", "glm4", "exaone4")
NO_PRE_NORMS = ("olmo2", "exaone4")
OUTPUT_NORMS = {"lfm2": "token_embd_norm"}
MLP_NORMS = {"gpt-oss": "post_attention_norm", "glm4moe": "post_attention_norm", "qwen35": "post_attention_norm"}
HEAD_NORMS = ("qwen3", "gemma3", "exaone4", "qwen3moe", "glm4moe", "lfm2", "qwen35")
ALL_HEADS_NORM = ("olmo2", "olmoe")
UNDIVIDED = ("qwen2moe", "olmoe", "gpt-oss")
WINDOW_PERIODS = {"gpt-oss": 2, "gemma2": 2, "gemma3": 6, "phi3": 0, "olmo2": 4, "exaone4": 4, "cohere2": 4}
SPM_SPACE = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def layer_norm(x, weight, bias, eps):
    centered = x - np.mean(x, axis=-1, keepdims=True)
    y = centered / np.sqrt(np.mean(centered * centered, axis=-1, keepdims=True) + eps) * weight
    return y if bias is None else y + bias


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    """Hendrycks & Gimpel 2016, the approximation with tanh."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def clamped_swiglu(gate, up, limit=7.0, alpha=1.702):
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return gate * sigmoid(alpha * gate) * (up + 1)


def soft_cap(x, cap):
    """Squeeze x into (-cap, cap); no cap given, no change."""
    return cap * np.tanh(x / cap) if cap else x


def rotate(x, positions, inv_freq, adjacent, scale=1.0):
    """RoPE on the first 2 * len(inv_freq) values of every head; the rest pass. x: [tokens, heads, head_dim]."""
    half = len(inv_freq)
    angle = positions[:, None, None] * inv_freq
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    first = slice(0, 2 * half, 2) if adjacent else slice(0, half)
    second = slice(1, 2 * half, 2) if adjacent else slice(half, 2 * half)
    a, b = x[..., first], x[..., second]
    out = x.copy()
    out[..., first] = a * cos - b * sin
    out[..., second] = a * sin + b * cos
    return out


def visible(n, window):
    """[n, n] bool: may row attend to column? A token sees itself and the window - 1 tokens before it."""
    row, column = np.arange(n)[:, None], np.arange(n)[None, :]
    mask = column <= row
    return mask & (row - column < window) if window else mask


class Vocabulary:
    """The SPM tokenizer of a GGUF file: enough to turn a plain prompt into ids and ids into text."""

    def __init__(self, fields):
        get = lambda k, default=None: fields[k].contents() if k in fields else default
        self.model = get("tokenizer.ggml.model")
        self.pieces = get("tokenizer.ggml.tokens")
        self.kinds = get("tokenizer.ggml.token_type", [NORMAL] * len(self.pieces))
        self.scores = get("tokenizer.ggml.scores", [0.0] * len(self.pieces))
        self.bos = get("tokenizer.ggml.bos_token_id")
        self.add_bos = get("tokenizer.ggml.add_bos_token", True)
        self.eos = get("tokenizer.ggml.eos_token_id")
        self.ids = {p: i for i, p in enumerate(self.pieces) if self.kinds[i] in (NORMAL, USER_DEFINED)}
        self.bytes = {int(p[3:5], 16): i for i, p in enumerate(self.pieces) if self.kinds[i] == BYTE}

    def encode(self, text):
        """Merge the adjacent pair of the best score until none is left; unknown characters fall back to bytes."""
        if self.model != "llama":
            raise SystemExit(f"only SPM vocabularies turn text into ids here, this one is {self.model!r}: use --ids")
        parts = list((" " + text).replace(" ", SPM_SPACE)) if text else []
        while True:
            pairs = [(-self.scores[self.ids[a + b]], i) for i, (a, b) in enumerate(zip(parts, parts[1:]))
                     if a + b in self.ids]
            if not pairs:
                break
            i = min(pairs)[1]
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        ids = [self.bos] if self.add_bos and self.bos is not None else []
        for p in parts:
            ids += [self.ids[p]] if p in self.ids else [self.bytes[b] for b in p.encode()]
        return ids

    def decode(self, ids):
        out = bytearray()
        for i in ids:
            if self.kinds[i] == BYTE:
                out.append(int(self.pieces[i][3:5], 16))
            elif self.kinds[i] in (NORMAL, USER_DEFINED):
                out += self.pieces[i].replace(SPM_SPACE, " ").encode()
        text = out.decode("utf-8", "replace")
        return text[1:] if text.startswith(" ") else text


class Reference:
    """A GGUF model. `context` only decides between the short and long RoPE factors of phi3."""

    def __init__(self, path, context=None):
        reader = gguf.GGUFReader(path)
        self.fields, self.path = reader.fields, path
        self.tensors = {t.name: t for t in reader.tensors}
        self.cache = {}
        self.arch = self.fields["general.architecture"].contents()
        if self.arch not in ARCHITECTURES:
            raise SystemExit(f"{path}: architecture {self.arch!r}; known: {', '.join(ARCHITECTURES)}")
        self.layers = self.hyper("block_count")
        self.dim = self.hyper("embedding_length")
        self.heads = self.hyper("attention.head_count")
        self.kv_heads = self.hyper("attention.head_count_kv", self.heads)
        self.conv_layers, self.delta_layers = [], []
        if self.arch == "qwen35":
            interval = self.hyper("full_attention_interval", 4)
            self.delta_layers = [i for i in range(self.layers) if (i + 1) % interval]
        if isinstance(self.kv_heads, list):
            self.conv_layers = [i for i, heads in enumerate(self.kv_heads) if heads == 0]
            self.kv_heads = max(self.kv_heads)
        self.key_dim = self.hyper("attention.key_length", self.dim // self.heads)
        self.value_dim = self.hyper("attention.value_length", self.dim // self.heads)
        self.eps = self.hyper("attention.layer_norm_epsilon" if self.arch in LAYER_NORM
                              else "attention.layer_norm_rms_epsilon")
        self.rope_dim = self.hyper("rope.dimension_count", self.key_dim)
        self.rope_base = self.hyper("rope.freq_base", 10000.0)
        self.attention_cap = self.final_cap = None
        if self.arch == "gemma2":
            self.attention_cap = self.hyper("attn_logit_softcapping", 50.0)
            self.final_cap = self.hyper("final_logit_softcapping", 30.0)
        self.gemma = self.arch in ("gemma2", "gemma3")
        self.query_scale = 1 / math.sqrt(self.key_dim)
        # The two 27B models divide by dim / heads instead; no metadata says so, their layer counts identify
        # them.
        if (self.arch, self.layers) in (("gemma2", 46), ("gemma3", 62)):
            self.query_scale = 1 / math.sqrt(self.dim // self.heads)
        self.embedding_scale = math.sqrt(self.dim) if self.gemma else 1.0
        self.residual_scale = self.logit_scale = 1.0
        if self.arch in ("granite", "granitemoe"):
            self.embedding_scale = self.hyper("embedding_scale", 0.0) or 1.0
            self.query_scale = self.hyper("attention.scale", 0.0) or self.query_scale
            self.residual_scale = self.hyper("residual_scale", 0.0) or 1.0
            self.logit_scale = 1 / self.hyper("logit_scale")
        elif self.arch in PARALLEL:
            self.logit_scale = self.hyper("logit_scale", 0.0) or 1.0
        self.experts = self.hyper("expert_count", 0)
        self.routing_gap = math.inf     # the smallest one met between a chosen expert and the next, in standard deviations
        self.context = context or self.hyper("rope.scaling.original_context_length", 0)

    def hyper(self, key, *default):
        field = self.fields.get(f"{self.arch}.{key}")
        if field is not None:
            return field.contents()
        if default:
            return default[0]
        raise SystemExit(f"{self.path}: {self.arch}.{key} is missing")

    def weight(self, name, optional=False):
        """The tensor in float64, rows first: [out, in]."""
        if name not in self.cache:
            t = self.tensors.get(name)
            if t is None:
                if optional:
                    return None
                raise SystemExit(f"{self.path}: tensor {name} is missing")
            data = gguf.quants.dequantize(t.data, t.tensor_type)
            self.cache[name] = data.astype(np.float64).reshape([int(n) for n in reversed(t.shape)])
        return self.cache[name]

    def expert_linear(self, x, name, expert):
        y = x @ self.weight(name + ".weight")[expert].T
        bias = self.weight(name + ".bias", optional=True)
        return y if bias is None else y + bias[expert]

    def linear(self, x, name):
        y = x @ self.weight(name + ".weight").T
        bias = self.weight(name + ".bias", optional=True)
        return y if bias is None else y + bias

    def window(self, layer):
        """The sliding window of the layer in tokens; None: it sees everything before."""
        period = WINDOW_PERIODS.get(self.arch)
        pattern = self.hyper("attention.sliding_window_pattern", period)
        if period is None or not (pattern[layer] if isinstance(pattern, list) else
                                  not pattern or layer % pattern != pattern - 1):
            return None
        return self.hyper("attention.sliding_window", None)

    def has_rope(self, layer):
        if self.arch == "granite":
            return self.hyper("rope.scaling.finetuned", True)
        if self.arch == "smollm3":
            return layer % 4 != 3
        if self.arch == "cohere2" or (self.arch == "exaone4" and self.hyper("attention.sliding_window", None)):
            return self.window(layer) is not None
        return True

    def frequencies(self, layer):
        """Angle per position of every rotated pair, and the factor on the rotated values."""
        if self.arch == "gemma3" and layer % 6 != 5:
            base, linear = self.hyper("rope.freq_base_swa", 10000.0), 1.0
        elif self.arch == "olmo2" and self.window(layer):
            base, linear = self.rope_base, 1.0
        else:
            base, linear = self.rope_base, self.linear_scaling()
        inv_freq = base ** (-np.arange(0, self.rope_dim, 2, dtype=np.float64) / self.rope_dim) / linear
        if self.hyper("rope.scaling.type", "none") == "yarn":
            return self.yarn(inv_freq)
        divisors = self.weight("rope_freqs.weight", optional=True)
        if divisors is None:
            long = self.context > self.hyper("rope.scaling.original_context_length", self.context)
            divisors = self.weight(f"rope_factors_{'long' if long else 'short'}.weight", optional=True)
        if divisors is not None:
            inv_freq = inv_freq / divisors
        return inv_freq, self.hyper("rope.scaling.attn_factor", 1.0)

    def yarn(self, inv_freq):
        """Frequencies that turn less than once over the original context are divided, those above 32 turns are not."""
        factor = self.hyper("rope.scaling.factor")
        turns = lambda n: (self.rope_dim * math.log(self.hyper("rope.scaling.original_context_length") / (n * 2 * math.pi))
                           / (2 * math.log(self.rope_base)))
        low, high = max(0, math.floor(turns(32))), min(self.rope_dim - 1, math.ceil(turns(1)))
        ramp = np.clip((np.arange(len(inv_freq)) - low) / max(0.001, high - low), 0, 1)
        return inv_freq * (ramp / factor + 1 - ramp), 1 + 0.1 * math.log(factor)

    def linear_scaling(self):
        kind = self.hyper("rope.scaling.type", "none")
        return self.hyper("rope.scaling.factor", 1.0) if kind == "linear" else 1.0

    def attention(self, x, layer):
        p, n = f"blk.{layer}.", len(x)
        q_width, k_width = self.heads * self.key_dim, self.kv_heads * self.key_dim
        if p + "attn_qkv.weight" in self.tensors:
            q, k, v = np.split(self.linear(x, p + "attn_qkv"), [q_width, q_width + k_width], axis=-1)
        else:
            q, k, v = (self.linear(x, p + f"attn_{part}") for part in "qkv")
        gate = None
        if self.arch == "qwen35":
            both = q.reshape(n, self.heads, 2, self.key_dim)
            q, gate = both[:, :, 0].reshape(n, -1), both[:, :, 1].reshape(n, -1)
        if self.arch in ALL_HEADS_NORM:
            q, k = (rms_norm(t, self.weight(p + f"attn_{part}_norm.weight"), self.eps) for t, part in ((q, "q"), (k, "k")))
        q = q.reshape(n, self.heads, self.key_dim)
        k = k.reshape(n, self.kv_heads, self.key_dim)
        v = v.reshape(n, self.kv_heads, self.value_dim)
        if self.arch in HEAD_NORMS:
            q = rms_norm(q, self.weight(p + "attn_q_norm.weight"), self.eps)
            k = rms_norm(k, self.weight(p + "attn_k_norm.weight"), self.eps)
        if self.has_rope(layer):
            inv_freq, factor = self.frequencies(layer)
            positions = np.arange(n, dtype=np.float64)
            q, k = (rotate(t, positions, inv_freq, self.arch in ADJACENT_PAIRS, factor) for t in (q, k))
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) * self.query_scale
        scores = np.where(visible(n, self.window(layer)), soft_cap(scores, self.attention_cap), -np.inf)
        sinks = self.weight(p + "attn_sinks.weight", optional=True)
        if sinks is not None:
            scores = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (self.heads, n, 1))], axis=-1)
        mixed = np.einsum("hqk,khd->qhd", softmax(scores)[..., :n], v)
        mixed = mixed.reshape(n, -1)
        return self.linear(mixed if gate is None else mixed * sigmoid(gate), p + "attn_output")

    def short_conv(self, x, layer):
        """Each channel of b * x is summed over the last tokens by its weights, the oldest first."""
        p = f"blk.{layer}.shortconv."
        b, c, x = np.split(self.linear(x, p + "in_proj"), 3, axis=-1)
        kernel = self.weight(p + "conv.weight")
        taps = kernel.shape[1]
        padded = np.concatenate([np.zeros((taps - 1, self.dim)), b * x])
        mixed = sum(kernel[:, tap] * padded[tap:tap + len(x)] for tap in range(taps))
        return self.linear(c * mixed, p + "out_proj")

    def delta_net(self, x, layer):
        """Convolution and SiLU over queries, keys and values; then, token by token, the gated delta rule."""
        p, n = f"blk.{layer}.", len(x)
        keys, heads, size = (self.hyper("ssm." + key) for key in ("group_count", "time_step_rank", "state_size"))
        kernel = self.weight(p + "ssm_conv1d.weight")
        taps = kernel.shape[1]
        qkv = self.linear(x, p + "attn_qkv")
        padded = np.concatenate([np.zeros((taps - 1, qkv.shape[1])), qkv])
        qkv = silu(sum(kernel[:, tap] * padded[tap:tap + n] for tap in range(taps)))
        q, k, v = np.split(qkv, [keys * size, 2 * keys * size], axis=-1)
        unit = lambda t: t / np.sqrt((t * t).sum(axis=-1, keepdims=True) + self.eps)
        q, k = (np.tile(unit(t.reshape(n, keys, size)), (1, heads // keys, 1)) for t in (q, k))
        v = v.reshape(n, heads, size)
        beta = sigmoid(self.linear(x, p + "ssm_beta"))
        alpha = np.log1p(np.exp(self.linear(x, p + "ssm_alpha") + self.weight(p + "ssm_dt.bias")))
        decay = np.exp(self.weight(p + "ssm_a") * alpha)
        state, y = np.zeros((heads, size, size)), np.zeros((n, heads, size))
        for t in range(n):
            state = state * decay[t][:, None, None]
            correction = beta[t][:, None] * (v[t] - np.einsum("hk,hkv->hv", k[t], state))
            state = state + k[t][:, :, None] * correction[:, None, :]
            y[t] = np.einsum("hk,hkv->hv", q[t], state) / math.sqrt(size)
        z = self.linear(x, p + "attn_gate").reshape(n, heads, size)
        y = rms_norm(y, self.weight(p + "ssm_norm.weight"), self.eps) * silu(z)
        return self.linear(y.reshape(n, -1), p + "ssm_out")

    def choose(self, scores):
        """The experts of each token, the best first: scores are [tokens, experts]."""
        groups = self.hyper("expert_group_count", 1)
        if groups > 1:
            pairs = np.sort(scores.reshape(len(scores), groups, -1), axis=-1)[..., -2:].sum(axis=-1)
            used = self.hyper("expert_group_used_count")
            self.note_gap(pairs, used)
            out = np.argsort(-pairs, axis=-1, kind="stable")[:, used:]
            scores = scores.reshape(len(scores), groups, -1).copy()
            np.put_along_axis(scores, out[..., None], -np.inf, axis=1)
            scores = scores.reshape(len(scores), -1)
        used = self.hyper("expert_used_count")
        self.note_gap(scores, used)
        return np.argsort(-scores, axis=-1, kind="stable")[:, :used]

    def note_gap(self, scores, used):
        if used < scores.shape[-1]:
            best = np.sort(scores, axis=-1)[:, ::-1]
            gap = (best[:, used - 1] - best[:, used]).min() / scores[np.isfinite(scores)].std()
            self.routing_gap = min(self.routing_gap, gap)

    def mixture(self, x, layer):
        p = f"blk.{layer}."
        logits = self.linear(x, p + "ffn_gate_inp")
        sigmoids = self.hyper("expert_gating_func", 2 if self.arch == "glm4moe" else 1) == 2
        scores = logits if self.arch == "gpt-oss" else sigmoid(logits) if sigmoids else softmax(logits)
        bias = self.weight(p + "exp_probs_b.bias", optional=True)
        chosen = self.choose(scores if bias is None else scores + bias)
        weights = np.take_along_axis(scores, chosen, axis=-1)
        if self.arch == "gpt-oss":
            weights = softmax(weights)
        if self.hyper("expert_weights_norm", False) if self.arch == "glm4moe" else self.arch not in UNDIVIDED:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        if self.arch == "glm4moe":
            weights = weights * (self.hyper("expert_weights_scale", 0.0) or 1.0)
        y = np.zeros_like(x)
        for token, (experts, shares) in enumerate(zip(chosen, weights)):
            for expert, share in zip(experts, shares):
                gate = self.expert_linear(x[token], p + "ffn_gate_exps", expert)
                up = self.expert_linear(x[token], p + "ffn_up_exps", expert)
                hidden = clamped_swiglu(gate, up) if self.arch == "gpt-oss" else silu(gate) * up
                y[token] += share * self.expert_linear(hidden, p + "ffn_down_exps", expert)
        if p + "ffn_up_shexp.weight" in self.tensors:
            hidden = silu(self.linear(x, p + "ffn_gate_shexp")) * self.linear(x, p + "ffn_up_shexp")
            shared = self.linear(hidden, p + "ffn_down_shexp")
            if self.arch == "qwen2moe":
                shared = shared * sigmoid(x @ self.weight(p + "ffn_gate_inp_shexp.weight"))[:, None]
            y = y + shared
        return y

    def feed_forward(self, x, layer):
        p = f"blk.{layer}."
        if self.experts > 1 and layer >= self.hyper("leading_dense_block_count", 0):
            return self.mixture(x, layer)
        if self.arch == "starcoder2":
            return self.linear(gelu_tanh(self.linear(x, p + "ffn_up")), p + "ffn_down")
        if self.arch in ("phi3", "glm4"):
            gate, up = np.split(self.linear(x, p + "ffn_up"), 2, axis=-1)
        else:
            gate, up = self.linear(x, p + "ffn_gate"), self.linear(x, p + "ffn_up")
        return self.linear((gelu_tanh if self.gemma else silu)(gate) * up, p + "ffn_down")

    def norm(self, x, name):
        if self.arch in LAYER_NORM:
            return layer_norm(x, self.weight(name + ".weight"), self.weight(name + ".bias", optional=True), self.eps)
        return rms_norm(x, self.weight(name + ".weight"), self.eps)

    def residual(self, y, name):
        """What attention or feed-forward adds to the hidden state; `name` is that of its norm."""
        return self.residual_scale * (self.norm(y, name) if self.arch in POST_NORMS else y)

    def logits(self, ids):
        """[len(ids), vocabulary] float64: the logits after every token of the sequence."""
        x = self.weight("token_embd.weight")[np.asarray(ids)] * self.embedding_scale
        pre = (lambda x, name: x) if self.arch in NO_PRE_NORMS else self.norm
        for i in range(self.layers):
            p = f"blk.{i}."
            y = pre(x, p + "attn_norm")
            if self.arch in PARALLEL:
                x = x + self.attention(y, i) + self.feed_forward(y, i)
                continue
            mixer = (self.attention if i not in self.conv_layers + self.delta_layers
                     else self.short_conv if i in self.conv_layers else self.delta_net)
            x = x + self.residual(mixer(y, i), p + "post_attention_norm")
            y = pre(x, p + MLP_NORMS.get(self.arch, "ffn_norm"))
            x = x + self.residual(self.feed_forward(y, i), p + "post_ffw_norm")
        x = self.norm(x, OUTPUT_NORMS.get(self.arch, "output_norm"))
        head = "output" if "output.weight" in self.tensors else "token_embd"
        return soft_cap(self.linear(x, head) * self.logit_scale, self.final_cap)

    def greedy(self, ids, tokens, stop=None):
        """The ids of the greedy continuation, and at each step by how much the best logit beat the second."""
        ids, start, margins = list(ids), len(ids), []
        for _ in range(tokens):
            row = self.logits(ids)[-1]
            second, best = np.sort(row)[-2:]
            token = int(row.argmax())
            if token == stop:
                break
            margins.append(float(best - second))
            ids.append(token)
        return ids[start:], margins


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("mode", choices=["logits", "greedy"])
    ap.add_argument("--model", required=True)
    ap.add_argument("--ids", help="token ids of the prompt, separated by commas")
    ap.add_argument("--prompt", help="text of the prompt (SPM vocabularies only)")
    ap.add_argument("--tokens", type=int, default=32)
    ap.add_argument("--rows", help="which rows to print, separated by commas; default: the last")
    ap.add_argument("--top", type=int, default=5)
    ap.add_argument("--context", type=int, help="for phi3: more than the original context selects the long factors")
    a = ap.parse_args()
    if (a.ids is None) == (a.prompt is None):
        ap.error("give either --ids or --prompt")
    model = Reference(a.model, a.context)
    vocabulary = Vocabulary(model.fields)
    ids = [int(i) for i in a.ids.split(",")] if a.ids is not None else vocabulary.encode(a.prompt)
    if a.mode == "greedy":
        out, margins = model.greedy(ids, a.tokens, vocabulary.eos)
        print("ids:", *out)
        print(f"smallest margin: {min(margins):.6f}" if margins else "no token")
        print("text:", vocabulary.decode(ids + out))
        return
    logits = model.logits(ids)
    for r in [int(r) for r in a.rows.split(",")] if a.rows else [len(ids) - 1]:
        best = np.argsort(-logits[r])[:a.top]
        print(f"row {r}:", " ".join(f"{t}:{logits[r, t]:.6f}" for t in best))


if __name__ == "__main__":
    sys.exit(main())
