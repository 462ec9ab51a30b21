// Keys and values: heads of new tokens, and attention to what is kept of earlier ones.
//
// The cache of a layer is two arrays, keys and values, [block][kv_head][BLOCK_TOKENS][dim] each, of half or
// float. A slot is block * BLOCK_TOKENS + position in the block; a sequence's table lists its blocks in
// order.

enum : u32 { BLOCK_TOKENS = 32 };

FUNC void put(DEVICE_PTR(half) to, float v) { *to = to_half(v); }
FUNC void put(DEVICE_PTR(float) to, float v) { *to = v; }

// Heads of new tokens.

enum : u32 { HEADS_THREADS = 128, HEADS_SIMDS = HEADS_THREADS / SIMD_WIDTH };
enum : u32 { HEADS_QUERY_NORM = 1, HEADS_KEY_NORM = 2, HEADS_INTERLEAVED = 4 };

// Angles are those of position % ROPE_FINE and of position - position % ROPE_FINE, added up.
enum : u32 { ROPE_FINE = 256 };

struct HeadsParams {
    u32 heads;
    u32 kv_heads;
    u32 dim;
    u32 pairs; // of rotary dimensions; 0 for no RoPE
    u32 flags;
    float epsilon; // of the norms
};

// Queries, keys and values of a row of x, [heads + 2 * kv_heads][dim] in this order: queries are normalized
// and rotated in place, keys are normalized, rotated and stored at the row's slot, values are stored. Norms
// are over a head, with weights [dim]. RoPE turns the pairs (i, i + pairs) of the first 2 * pairs dimensions,
// or (2i, 2i + 1) if interleaved; angles has {cos, sin} of the pairs for positions 0 .. ROPE_FINE - 1, then
// for the multiples of ROPE_FINE. A SIMD group per head. Grid: (rows, ceil((heads + 2 * kv_heads) /
// HEADS_SIMDS), 1).
template <class E>
FUNC void put_heads(DEVICE_PTR(float) x, DEVICE_PTR(const float) query_norm, DEVICE_PTR(const float) key_norm,
                    DEVICE_PTR(const float) angles, u32 position, u32 slot, DEVICE_PTR(E) keys, DEVICE_PTR(E) values,
                    PARAMS_REF(HeadsParams) p, u32 head, u32 lane)
{
    const bool is_query = head < p.heads;
    const bool is_key = !is_query && head < p.heads + p.kv_heads;
    const u32 kv_head = is_query ? 0 : (head - p.heads) % p.kv_heads;
    const u64 to = (((u64)(slot / BLOCK_TOKENS) * p.kv_heads + kv_head) * BLOCK_TOKENS + slot % BLOCK_TOKENS) * p.dim;
    const bool is_normed = (is_query && (p.flags & HEADS_QUERY_NORM)) || (is_key && (p.flags & HEADS_KEY_NORM));

    float square = 0.0f;
    if (is_normed) {
        for (u32 i = lane; i < p.dim; i += SIMD_WIDTH) {
            square += x[i] * x[i];
        }
    }
    square = simd_sum(square);
    const float scale = is_normed ? RSQRT(square / (float)p.dim + p.epsilon) : 1.0f;
    const u32 pairs = is_query || is_key ? p.pairs : 0;
    for (u32 i = lane; i < p.dim / 2; i += SIMD_WIDTH) {
        u32 first = 2 * i, second = 2 * i + 1;
        if (i < pairs && !(p.flags & HEADS_INTERLEAVED)) {
            first = i;
            second = i + pairs;
        }
        float a = x[first], b = x[second];
        if (is_normed) {
            a *= scale * (is_query ? query_norm[first] : key_norm[first]);
            b *= scale * (is_query ? query_norm[second] : key_norm[second]);
        }
        if (i < pairs) {
            DEVICE_PTR(const float) fine = angles + ((u64)(position % ROPE_FINE) * pairs + i) * 2;
            DEVICE_PTR(const float) coarse = angles + ((u64)(ROPE_FINE + position / ROPE_FINE) * pairs + i) * 2;
            const float cosine = coarse[0] * fine[0] - coarse[1] * fine[1];
            const float sine = coarse[1] * fine[0] + coarse[0] * fine[1];
            const float turned = a * cosine - b * sine;
            b = a * sine + b * cosine;
            a = turned;
        }
        if (is_query) {
            x[first] = a;
            x[second] = b;
        } else if (is_key) {
            put(keys + (to + first), a);
            put(keys + (to + second), b);
        } else {
            put(values + (to + first), a);
            put(values + (to + second), b);
        }
    }
}

#define HEADS(E, NAME)                                                                                                 \
    KERNEL(heads_##NAME, HEADS_THREADS)(                                                                               \
        INOUT(float, x, 0), IN(float, query_norm, 1), IN(float, key_norm, 2), IN(float, angles, 3),                    \
        IN(u32, positions, 4), IN(u32, slots, 5), INOUT(E, keys, 6), INOUT(E, values, 7), PARAMS(HeadsParams, p, 8)    \
            INDICES)                                                                                                   \
    {                                                                                                                  \
        const u32 head = GROUP_Y * HEADS_SIMDS + SIMD, all = p.heads + 2 * p.kv_heads;                                 \
        if (head < all) {                                                                                              \
            put_heads<E>(x + ((u64)GROUP_X * all + head) * p.dim, query_norm, key_norm, angles, positions[GROUP_X],    \
                         slots[GROUP_X], keys, values, p, head, LANE);                                                 \
        }                                                                                                              \
    }

// Attention.

enum : u32 { ATTEND_THREADS = 128, ATTEND_SIMDS = ATTEND_THREADS / SIMD_WIDTH };

// A view is a run of rows of one sequence: {first row of x, place of the sequence's table in tables, tokens
// that the first row sees at most, rows, first row of out}, VIEW_WORDS in all. Each further row sees one
// token more.

struct AttendParams {
    u32 heads;
    u32 kv_heads;
    u32 dim;    // a multiple of 4, at most D
    u32 stride; // floats from a row of x to the next
    u32 window; // last tokens that a row sees; 0 for all
    u32 splits;
    float scale;
    float softcap; // 0 for none
};

// Online softmax (Milakov and Gimelshein, arXiv:1805.02867) of R rows of a view times H heads that share keys
// and values, over the blocks of one split. SIMD group s walks every ATTEND_SIMDS-th block with states of its
// own: a lane per token for the scores, a lane per dimension (modulo 32) for the values. The states are
// merged at the end.
//
// With one split, out is [row][head][dim], normalized; with more, for views of one row,
// [view][head][split][dim + 2]: sums of values, largest score, sum of weights.
template <class E, u32 D, u32 R, u32 H>
FUNC void attend(DEVICE_PTR(const float) x, DEVICE_PTR(const E) keys, DEVICE_PTR(const E) values,
                 DEVICE_PTR(const u32) tables, DEVICE_PTR(const u32) views, DEVICE_PTR(float) out,
                 PARAMS_REF(AttendParams) p, u32 group_x, u32 group_y, u32 split, SHARED_PTR(float) query,
                 SHARED_PTR(float) weights,
                 SHARED_PTR(float) state, SHARED_PTR(float) merged, u32 index, u32 lane, u32 simd)
{
    enum : u32 { N = R * H, PER_LANE = D / SIMD_WIDTH };
    DEVICE_PTR(const u32) view = views + (u64)group_x * VIEW_WORDS;
    DEVICE_PTR(const u32) table = tables + view[1];
    const u32 first_length = view[2], rows = MIN_U(view[3], (u32)R);
    const u32 group = p.heads / p.kv_heads;
    const u32 parts = (group + H - 1) / H;
    const u32 kv_head = group_y / parts, first_head = group_y % parts * H;
    for (u32 n = 0; n < N; ++n) {
        // Rows and heads past the end repeat the last one and are not stored.
        const u32 head = kv_head * group + MIN_U(first_head + n % H, group - 1);
        const u64 from = (u64)(view[0] + MIN_U(n / H, rows - 1)) * p.stride + head * p.dim;
        for (u32 i = index; i < p.dim; i += ATTEND_THREADS) {
            query[n * D + i] = x[from + i] * p.scale;
        }
    }
    BARRIER();

    float top[N], total[N], sums[N][PER_LANE];
    UNROLL for (u32 n = 0; n < N; ++n) {
        top[n] = LOWEST;
        total[n] = 0.0f;
        UNROLL for (u32 i = 0; i < PER_LANE; ++i) {
            sums[n][i] = 0.0f;
        }
    }
    // Tokens that the first row begins with, and that the last one ends with.
    const u32 start = p.window > 0 && first_length > p.window ? first_length - p.window : 0;
    const u32 length = first_length + rows - 1;
    const u32 first_block = start / BLOCK_TOKENS, blocks = (length + BLOCK_TOKENS - 1) / BLOCK_TOKENS - first_block;
    const u32 per_split = (blocks + p.splits - 1) / p.splits;
    const u32 end = first_block + MIN_U((split + 1) * per_split, blocks);
    for (u32 block = first_block + split * per_split + simd; block < end; block += ATTEND_SIMDS) {
        const u64 base = ((u64)table[block] * p.kv_heads + kv_head) * BLOCK_TOKENS * p.dim;
        const u32 first = block * BLOCK_TOKENS;
        const u32 from = start > first ? start - first : 0, to = MIN_U(length - first, (u32)BLOCK_TOKENS);
        float score[N];
        UNROLL for (u32 n = 0; n < N; ++n) {
            score[n] = 0.0f;
        }
        if (lane >= from && lane < to) {
            for (u32 i = 0; i < p.dim; i += 4) {
                const float4 key = load4(keys + (base + lane * p.dim + i));
                UNROLL for (u32 n = 0; n < N; ++n) {
                    score[n] += query[n * D + i] * key.x + query[n * D + i + 1] * key.y + query[n * D + i + 2] * key.z
                        + query[n * D + i + 3] * key.w;
                }
            }
        }
        SIMD_BARRIER(); // the weights of the block before have been read
        UNROLL for (u32 n = 0; n < N; ++n) {
            const u32 row_length = first_length + MIN_U(n / H, rows - 1);
            const u32 token = first + lane;
            const bool seen = token < row_length && (p.window == 0 || token + p.window >= row_length);
            if (p.softcap > 0.0f) {
                score[n] = p.softcap * tanh_of(score[n] / p.softcap);
            }
            const float new_top = MAX_F(top[n], simd_max(seen ? score[n] : LOWEST));
            const float weight = seen ? EXP(score[n] - new_top) : 0.0f;
            const float fade = EXP(top[n] - new_top);
            total[n] = total[n] * fade + simd_sum(weight);
            top[n] = new_top;
            weights[(simd * N + n) * SIMD_WIDTH + lane] = weight;
            UNROLL for (u32 i = 0; i < PER_LANE; ++i) {
                sums[n][i] *= fade;
            }
        }
        SIMD_BARRIER();
        for (u32 t = from; t < to; ++t) {
            float weight[N];
            UNROLL for (u32 n = 0; n < N; ++n) {
                weight[n] = weights[(simd * N + n) * SIMD_WIDTH + t];
            }
            UNROLL for (u32 i = 0; i < PER_LANE; ++i) {
                const u32 d = lane + i * SIMD_WIDTH;
                if (d < p.dim) {
                    const float value = to_float(values[base + t * p.dim + d]);
                    UNROLL for (u32 n = 0; n < N; ++n) {
                        sums[n][i] += weight[n] * value;
                    }
                }
            }
        }
    }

    UNROLL for (u32 n = 0; n < N; ++n) {
        if (lane == 0) {
            state[simd * 2] = top[n];
            state[simd * 2 + 1] = total[n];
        }
        UNROLL for (u32 i = 0; i < PER_LANE; ++i) {
            merged[simd * D + lane + i * SIMD_WIDTH] = sums[n][i];
        }
        BARRIER();
        float all_top = LOWEST, all_total = 0.0f;
        for (u32 s = 0; s < ATTEND_SIMDS; ++s) {
            all_top = MAX_F(all_top, (float)state[s * 2]);
        }
        for (u32 s = 0; s < ATTEND_SIMDS; ++s) {
            all_total += EXP(state[s * 2] - all_top) * state[s * 2 + 1];
        }
        const bool is_stored = first_head + n % H < group && n / H < rows;
        const u32 head = kv_head * group + first_head + n % H;
        const u64 at = p.splits == 1 ? ((u64)(view[4] + n / H) * p.heads + head) * p.dim
                                     : (((u64)group_x * p.heads + head) * p.splits + split) * (p.dim + 2);
        for (u32 d = index; d < p.dim; d += ATTEND_THREADS) {
            float value = 0.0f;
            for (u32 s = 0; s < ATTEND_SIMDS; ++s) {
                value += EXP(state[s * 2] - all_top) * merged[s * D + d];
            }
            if (is_stored) {
                out[at + d] = p.splits == 1 ? (all_total > 0.0f ? value / all_total : 0.0f) : value;
            }
        }
        if (is_stored && p.splits > 1 && index == 0) {
            out[at + p.dim] = all_top;
            out[at + p.dim + 1] = all_total;
        }
        BARRIER();
    }
}

// Grid: (views, kv_heads * ceil(heads / kv_heads / H), splits).
#define ATTEND(E, NAME, D, R, H)                                                                                       \
    KERNEL(attend_##NAME##_##D##_##R##x##H, ATTEND_THREADS)(                                                           \
        IN(float, x, 0), IN(E, keys, 1), IN(E, values, 2), IN(u32, tables, 3), IN(u32, views, 4), OUT(float, out, 5),  \
        PARAMS(AttendParams, p, 6) INDICES)                                                                            \
    {                                                                                                                  \
        SHARED(float, query, R *H *D);                                                                                 \
        SHARED(float, weights, ATTEND_SIMDS *R *H *SIMD_WIDTH);                                                        \
        SHARED(float, state, ATTEND_SIMDS * 2);                                                                        \
        SHARED(float, merged, ATTEND_SIMDS *D);                                                                        \
        attend<E, D, R, H>(x, keys, values, tables, views, out, p, GROUP_X, GROUP_Y, GROUP_Z, query, weights, state,   \
                           merged, THREAD, LANE, SIMD);                                                                \
    }

// Kernels for heads of up to D dimensions: for views of one row, one head at a time, and 4 that share keys
// and values; for longer views 8 rows of one head, and 2 rows of 4 heads.
#define ATTENTION(E, NAME, D)                                                                                          \
    ATTEND(E, NAME, D, 1, 1)                                                                                           \
    ATTEND(E, NAME, D, 1, 4)                                                                                           \
    ATTEND(E, NAME, D, 8, 1)                                                                                           \
    ATTEND(E, NAME, D, 2, 4)
