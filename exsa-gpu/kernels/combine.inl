// Merges the splits of attention: attention.inl.

enum : u32 { COMBINE_THREADS = 64 };

struct CombineParams {
    u32 heads;
    u32 dim;
    u32 splits;
};

// parts is [view][head][split][dim + 2], out [row][head][dim]; word 4 of a view is its row of out. Grid:
// (views, heads, 1).
KERNEL(combine, COMBINE_THREADS)(
    IN(float, parts, 0), IN(u32, views, 1), OUT(float, out, 2), PARAMS(CombineParams, p, 3) INDICES)
{
    const u64 head = (u64)GROUP_X * p.heads + GROUP_Y;
    const u64 to = ((u64)views[(u64)GROUP_X * VIEW_WORDS + 4] * p.heads + GROUP_Y) * p.dim;
    const u32 width = p.dim + 2;
    DEVICE_PTR(const float) mine = parts + head * p.splits * width;
    float top = LOWEST;
    for (u32 s = 0; s < p.splits; ++s) {
        top = MAX_F(top, mine[s * width + p.dim]);
    }
    float total = 0.0f;
    for (u32 s = 0; s < p.splits; ++s) {
        total += EXP(mine[s * width + p.dim] - top) * mine[s * width + p.dim + 1];
    }
    for (u32 d = THREAD; d < p.dim; d += COMBINE_THREADS) {
        float value = 0.0f;
        for (u32 s = 0; s < p.splits; ++s) {
            value += EXP(mine[s * width + p.dim] - top) * mine[s * width + d];
        }
        out[to + d] = total > 0.0f ? value / total : 0.0f;
    }
}
