// Kernels that read weights: embeddings, products with few rows of activations, products with many.
// WEIGHTS(TYPE, NAME) makes those of one type.

// Embeddings.

enum : u32 { EMBED_THREADS = 64 };

struct EmbedParams {
    u32 cols;
    float factor;
};

template <class W>
FUNC void embed(DEVICE_PTR(const u8) table, u32 token, DEVICE_PTR(float) y, u32 cols, float factor, u32 chunk)
{
    if (chunk < cols / 8) {
        const u64 row = (u64)token * (cols / W::LEN) * W::BYTES;
        const u64 block = chunk / (W::LEN / 8);
        const Values8 values = W::load(table + (row + block * W::BYTES), chunk % (W::LEN / 8));
        UNROLL for (u32 i = 0; i < 8; ++i) {
            y[chunk * 8 + i] = factor * values.v[i];
        }
    }
}

// Products with few rows.

struct ProductParams {
    u32 rows;     // of the matrix
    u32 cols;     // of the matrix, a multiple of 8 and of the block's length
    u32 m;        // rows of x
    u32 x_stride; // floats from a row of x to the next, a multiple of 4
    u32 y_stride; // floats from a row of y to the next
};

enum : u32 {
    FEW_THREADS = 64,
    FEW_SIMDS = FEW_THREADS / SIMD_WIDTH,
    FEW_ROWS = 4,
    FEW_ROWS_PER_GROUP = FEW_SIMDS * FEW_ROWS,
};

// y[n][row] = sum over k of W[row][k] * x[n][k], for M rows of x from `first_x` on. A SIMD group computes
// FEW_ROWS rows of the matrix, so that it loads x once for all of them; a lane takes every 32nd chunk of 8
// values. Each sum has the same order whatever M is.
template <class W, u32 M>
FUNC void product_few(DEVICE_PTR(const u8) w, DEVICE_PTR(const float) x, DEVICE_PTR(float) y, u32 rows, u32 cols, u32 m,
                      u32 x_stride, u32 y_stride, u32 group, u32 first_x, u32 lane, u32 simd)
{
    const u32 first = (group * FEW_SIMDS + simd) * FEW_ROWS;
    const u64 row_bytes = (u64)(cols / W::LEN) * W::BYTES;
    float sums[FEW_ROWS][M];
    UNROLL for (u32 r = 0; r < FEW_ROWS; ++r) {
        UNROLL for (u32 n = 0; n < M; ++n) {
            sums[r][n] = 0.0f;
        }
    }
    for (u32 chunk = lane; chunk < cols / 8; chunk += SIMD_WIDTH) {
        const u32 c = chunk % (W::LEN / 8);
        const u64 at = (u64)(chunk / (W::LEN / 8)) * W::BYTES;
        Values8 weights[FEW_ROWS];
        UNROLL for (u32 r = 0; r < FEW_ROWS; ++r) {
            // Rows past the end repeat the last one and are not stored.
            weights[r] = W::load(w + (MIN_U(first + r, rows - 1) * row_bytes + at), c);
        }
        UNROLL for (u32 n = 0; n < M; ++n) {
            DEVICE_PTR(const float) values = x + ((u64)MIN_U(first_x + n, m - 1) * x_stride + chunk * 8);
            const float4 a = load4(values), b = load4(values + 4);
            UNROLL for (u32 r = 0; r < FEW_ROWS; ++r) {
                sums[r][n] += weights[r].v[0] * a.x + weights[r].v[1] * a.y + weights[r].v[2] * a.z
                    + weights[r].v[3] * a.w + weights[r].v[4] * b.x + weights[r].v[5] * b.y + weights[r].v[6] * b.z
                    + weights[r].v[7] * b.w;
            }
        }
    }
    UNROLL for (u32 r = 0; r < FEW_ROWS; ++r) {
        UNROLL for (u32 n = 0; n < M; ++n) {
            const float sum = simd_sum(sums[r][n]);
            if (lane == 0 && first + r < rows && first_x + n < m) {
                y[(u64)(first_x + n) * y_stride + first + r] = sum;
            }
        }
    }
}

// Products with many rows.

// The plain form: a threadgroup computes MANY_ROWS rows of the matrix for MANY_X rows of x, MANY_K values of
// k at a time through threadgroup memory, [k][row]; a thread computes 4 x 4 of them.
enum : u32 { MANY_THREADS = 128, MANY_ROWS = 64, MANY_X = 32, MANY_K = 32 };

template <class W>
FUNC void product_many(DEVICE_PTR(const u8) w, DEVICE_PTR(const float) x, DEVICE_PTR(float) y, u32 rows, u32 cols, u32 m,
                       u32 x_stride, u32 y_stride, SHARED_PTR(float) w_tile, SHARED_PTR(float) x_tile, u32 group_rows,
                       u32 group_x, u32 index)
{
    const u32 first_row = group_rows * MANY_ROWS, first_x = group_x * MANY_X;
    const u64 row_bytes = (u64)(cols / W::LEN) * W::BYTES;
    const u32 my_row = index % 16 * 4, my_x = index / 16 * 4;
    float sums[4][4];
    UNROLL for (u32 r = 0; r < 4; ++r) {
        UNROLL for (u32 n = 0; n < 4; ++n) {
            sums[r][n] = 0.0f;
        }
    }
    for (u32 first_k = 0; first_k < cols; first_k += MANY_K) {
        for (u32 i = index; i < MANY_ROWS * (MANY_K / 8); i += MANY_THREADS) {
            const u32 row = i % MANY_ROWS, k = i / MANY_ROWS * 8;
            const u32 chunk = (first_k + k) / 8;
            Values8 values;
            UNROLL for (u32 j = 0; j < 8; ++j) {
                values.v[j] = 0.0f;
            }
            if (first_row + row < rows && first_k + k < cols) {
                const u64 at = (first_row + row) * row_bytes + (u64)(chunk / (W::LEN / 8)) * W::BYTES;
                values = W::load(w + at, chunk % (W::LEN / 8));
            }
            UNROLL for (u32 j = 0; j < 8; ++j) {
                w_tile[(k + j) * MANY_ROWS + row] = values.v[j];
            }
        }
        for (u32 i = index; i < MANY_X * MANY_K; i += MANY_THREADS) {
            const u32 n = i / MANY_K, k = i % MANY_K;
            const bool there = first_x + n < m && first_k + k < cols;
            x_tile[k * MANY_X + n] = there ? x[(u64)(first_x + n) * x_stride + first_k + k] : 0.0f;
        }
        BARRIER();
        for (u32 k = 0; k < MANY_K; ++k) {
            float a[4], b[4];
            UNROLL for (u32 i = 0; i < 4; ++i) {
                a[i] = w_tile[k * MANY_ROWS + my_row + i];
                b[i] = x_tile[k * MANY_X + my_x + i];
            }
            UNROLL for (u32 r = 0; r < 4; ++r) {
                UNROLL for (u32 n = 0; n < 4; ++n) {
                    sums[r][n] += a[r] * b[n];
                }
            }
        }
        BARRIER();
    }
    UNROLL for (u32 n = 0; n < 4; ++n) {
        UNROLL for (u32 r = 0; r < 4; ++r) {
            if (first_row + my_row + r < rows && first_x + my_x + n < m) {
                y[(u64)(first_x + my_x + n) * y_stride + first_row + my_row + r] = sums[r][n];
            }
        }
    }
}

// Kernels.

// Grid: (ceil(rows / FEW_ROWS_PER_GROUP), ceil(m / M), 1).
#define PRODUCT_FEW(TYPE, NAME, M)                                                                                     \
    KERNEL(product_##M##_##NAME, FEW_THREADS)(                                                                         \
        IN(u8, w, 0), IN(float, x, 1), OUT(float, y, 2), PARAMS(ProductParams, p, 3) INDICES)                          \
    {                                                                                                                  \
        product_few<TYPE, M>(w, x, y, p.rows, p.cols, p.m, p.x_stride, p.y_stride, GROUP_X, GROUP_Y * M, LANE, SIMD);  \
    }

// Embeddings: grid (ceil(cols / 8 / EMBED_THREADS), tokens, 1). Many rows: (ceil(rows / MANY_ROWS), ceil(m /
// MANY_X), 1).
#define WEIGHTS(TYPE, NAME)                                                                                            \
    KERNEL(embed_##NAME, EMBED_THREADS)(                                                                               \
        IN(u8, table, 0), IN(u32, tokens, 1), OUT(float, y, 2), PARAMS(EmbedParams, p, 3) INDICES)                     \
    {                                                                                                                  \
        embed<TYPE>(table, tokens[GROUP_Y], y + (u64)GROUP_Y * p.cols, p.cols, p.factor,                               \
                    GROUP_X * EMBED_THREADS + THREAD);                                                                 \
    }                                                                                                                  \
    PRODUCT_FEW(TYPE, NAME, 1)                                                                                         \
    PRODUCT_FEW(TYPE, NAME, 4)                                                                                         \
    PRODUCT_FEW(TYPE, NAME, 8)                                                                                         \
    KERNEL(product_many_##NAME, MANY_THREADS)(                                                                         \
        IN(u8, w, 0), IN(float, x, 1), OUT(float, y, 2), PARAMS(ProductParams, p, 3) INDICES)                          \
    {                                                                                                                  \
        SHARED(float, w_tile, MANY_ROWS *MANY_K);                                                                      \
        SHARED(float, x_tile, MANY_X *MANY_K);                                                                         \
        product_many<TYPE>(w, x, y, p.rows, p.cols, p.m, p.x_stride, p.y_stride, w_tile, x_tile, GROUP_X, GROUP_Y,     \
                           THREAD);                                                                                    \
    }
