// Passes over rows of activations: norms, gates, gathers, logits.

// Norms.

enum : u32 { NORM_THREADS = 256, NORM_SIMDS = NORM_THREADS / SIMD_WIDTH };
enum : u32 { NORM_ADD = 1, NORM_LAYER = 2, NORM_BIAS = 4 };

struct NormParams {
    u32 cols;
    u32 stride; // floats from a row of x and y to the next
    u32 flags;
    float epsilon;
    float factor;
};

// The sum of a value of every thread, in every thread. `partial` has a float for each SIMD group and is free
// again after the next barrier.
FUNC float sum_of_group(float value, SHARED_PTR(float) partial, u32 lane, u32 simd)
{
    value = simd_sum(value);
    if (lane == 0) {
        partial[simd] = value;
    }
    BARRIER();
    // Every SIMD group adds the partial sums again: cheaper than a second barrier.
    return simd_sum(lane < NORM_SIMDS ? (float)partial[lane] : 0.0f);
}

// NORM_ADD first adds factor * t to x. Then y = x / sqrt(mean(x^2) + epsilon) * weight (RMSNorm), or with
// NORM_LAYER y = (x - mean(x)) / sqrt(var(x) + epsilon) * weight, + bias with NORM_BIAS. y may be x. t has
// rows of cols floats. Grid: (rows, 1, 1).
KERNEL(norm_rows, NORM_THREADS)(
    INOUT(float, x, 0), IN(float, t, 1), IN(float, weight, 2), IN(float, bias, 3), INOUT(float, y, 4),
    PARAMS(NormParams, p, 5) INDICES)
{
    SHARED(float, sums, NORM_SIMDS);
    SHARED(float, squares, NORM_SIMDS);
    const u64 row = (u64)GROUP_X * p.stride;
    const u64 added = (u64)GROUP_X * p.cols;

    float sum = 0.0f;
    float square = 0.0f;
    for (u32 i = THREAD; i < p.cols; i += NORM_THREADS) {
        float v = x[row + i];
        if (p.flags & NORM_ADD) {
            v += p.factor * t[added + i];
            x[row + i] = v;
        }
        sum += v;
        square += v * v;
    }
    float mean = 0.0f;
    if (p.flags & NORM_LAYER) {
        mean = sum_of_group(sum, sums, LANE, SIMD) / (float)p.cols;
        square = 0.0f;
        for (u32 i = THREAD; i < p.cols; i += NORM_THREADS) {
            const float v = x[row + i] - mean;
            square += v * v;
        }
    }
    const float total = sum_of_group(square, squares, LANE, SIMD);
    const float scale = RSQRT(total / (float)p.cols + p.epsilon);
    for (u32 i = THREAD; i < p.cols; i += NORM_THREADS) {
        const float v = (x[row + i] - mean) * scale * weight[i];
        y[row + i] = p.flags & NORM_BIAS ? v + bias[i] : v;
    }
}

// Elementwise.

enum : u32 { EACH_THREADS = 256 };

struct AddParams {
    u32 cols;
    u32 stride;
    float factor;
};

// x[row][i] += factor * t[row][i]; rows of x are stride floats apart, those of t cols.
// Grid: (ceil(cols / EACH_THREADS), rows, 1).
KERNEL(add_rows, EACH_THREADS)(INOUT(float, x, 0), IN(float, t, 1), PARAMS(AddParams, p, 2) INDICES)
{
    const u32 i = GROUP_X * EACH_THREADS + THREAD;
    if (i < p.cols) {
        x[(u64)GROUP_Y * p.stride + i] += p.factor * t[(u64)GROUP_Y * p.cols + i];
    }
}

// x[row][i] += bias[i]. Grid as for add_rows.
KERNEL(add_bias, EACH_THREADS)(INOUT(float, x, 0), IN(float, bias, 1), PARAMS(AddParams, p, 2) INDICES)
{
    const u32 i = GROUP_X * EACH_THREADS + THREAD;
    if (i < p.cols) {
        x[(u64)GROUP_Y * p.stride + i] += bias[i];
    }
}

enum : u32 { GATE_SILU = 0, GATE_GELU = 1 };

struct GateParams {
    u32 cols;
    u32 activation;
    u32 gated;
};

// y[row][i] = activation(x[row][i]) * x[row][cols + i], x having rows of 2 * cols; or without a gate
// y[row][i] = activation(x[row][i]), x having rows of cols. GELU is the form with tanh:
// v / 2 * (1 + tanh(u)) = v * sigmoid(2u). Grid: (ceil(cols / EACH_THREADS), rows, 1).
KERNEL(gate, EACH_THREADS)(IN(float, x, 0), OUT(float, y, 1), PARAMS(GateParams, p, 2) INDICES)
{
    const u32 i = GROUP_X * EACH_THREADS + THREAD;
    if (i < p.cols) {
        const u64 row = (u64)GROUP_Y * p.cols * (p.gated ? 2 : 1);
        const float v = x[row + i];
        const float u = p.activation == GATE_GELU ? 1.5957691216f * (v + 0.044715f * v * v * v) : v;
        const float active = v * sigmoid(u);
        y[(u64)GROUP_Y * p.cols + i] = p.gated ? active * x[row + p.cols + i] : active;
    }
}

struct LogitParams {
    u32 cols;
    float factor;
    float softcap; // 0 for none
};

// x = factor * x, then softcap * tanh(x / softcap). Grid: (ceil(cols / EACH_THREADS), rows, 1).
KERNEL(logits, EACH_THREADS)(INOUT(float, x, 0), PARAMS(LogitParams, p, 1) INDICES)
{
    const u32 i = GROUP_X * EACH_THREADS + THREAD;
    if (i < p.cols) {
        const u64 at = (u64)GROUP_Y * p.cols + i;
        const float v = p.factor * x[at];
        x[at] = p.softcap > 0.0f ? p.softcap * tanh_of(v / p.softcap) : v;
    }
}

struct GatherParams {
    u32 cols;
};

// y[row] = x[rows[row]]. Grid: (ceil(cols / EACH_THREADS), rows, 1).
KERNEL(gather_rows, EACH_THREADS)(
    IN(float, x, 0), IN(u32, rows, 1), OUT(float, y, 2), PARAMS(GatherParams, p, 3) INDICES)
{
    const u32 i = GROUP_X * EACH_THREADS + THREAD;
    if (i < p.cols) {
        y[(u64)GROUP_Y * p.cols + i] = x[(u64)rows[GROUP_Y] * p.cols + i];
    }
}

// Arg-max.

// best[row] = index of the largest value of x[row], the first one of equals; values that are not numbers are
// passed over, and a row of these gives cols. Grid: (rows, 1, 1).
KERNEL(arg_max, EACH_THREADS)(IN(float, x, 0), OUT(u32, best, 1), PARAMS(GatherParams, p, 2) INDICES)
{
    SHARED(float, values, EACH_THREADS);
    SHARED(u32, places, EACH_THREADS);
    const u64 row = (u64)GROUP_X * p.cols;
    float top = LOWEST;
    u32 place = p.cols;
    for (u32 i = THREAD; i < p.cols; i += EACH_THREADS) {
        const float v = x[row + i];
        if (v > top || (v == top && place == p.cols)) {
            top = v;
            place = i;
        }
    }
    values[THREAD] = top;
    places[THREAD] = place;
    BARRIER();
    for (u32 n = EACH_THREADS / 2; n > 0; n /= 2) {
        if (THREAD < n) {
            const float v = values[THREAD + n];
            const u32 i = places[THREAD + n];
            if (v > top || (v == top && i < place)) {
                top = v;
                place = i;
                values[THREAD] = v;
                places[THREAD] = i;
            }
        }
        BARRIER();
    }
    if (THREAD == 0) {
        best[GROUP_X] = place;
    }
}
