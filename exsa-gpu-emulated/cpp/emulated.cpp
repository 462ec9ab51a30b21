// The kernels on the emulator, behind C functions.
#include "prelude_emulated.h"

#include "common.inl"
#include "rows.inl"
#include "attention.inl"
#include "combine.inl"
#include "formats.inl"
#include "weights.inl"

#define WEIGHT_TYPES(X)                                                                                                \
    X(WeightF32, f32)                                                                                                  \
    X(WeightF16, f16)                                                                                                  \
    X(WeightBF16, bf16)                                                                                                \
    X(WeightQ4_0, q4_0)                                                                                                \
    X(WeightQ4_1, q4_1)                                                                                                \
    X(WeightQ5_0, q5_0)                                                                                                \
    X(WeightQ5_1, q5_1)                                                                                                \
    X(WeightQ8_0, q8_0)                                                                                                \
    X(WeightQ2_K, q2_k)                                                                                                \
    X(WeightQ3_K, q3_k)                                                                                                \
    X(WeightQ4_K, q4_k)                                                                                                \
    X(WeightQ5_K, q5_k)                                                                                                \
    X(WeightQ6_K, q6_k)                                                                                                \
    X(WeightIQ4_NL, iq4_nl)                                                                                            \
    X(WeightIQ4_XS, iq4_xs)                                                                                            \
    X(WeightMXFP4, mxfp4)

#define CACHES(X)                                                                                                      \
    X(half, f16)                                                                                                       \
    X(float, f32)

#define WIDTHS(X, E, NAME)                                                                                             \
    X(E, NAME, 32)                                                                                                     \
    X(E, NAME, 64)                                                                                                     \
    X(E, NAME, 128)                                                                                                    \
    X(E, NAME, 256)

WEIGHT_TYPES(WEIGHTS)
CACHES(HEADS)
WIDTHS(ATTENTION, half, f16)
WIDTHS(ATTENTION, float, f32)

#define ENTRY(name) emu::Entry{#name, name##_threads, emu::Caller<name>::arguments, emu::Caller<name>::call},
#define WEIGHT_ENTRIES(TYPE, NAME)                                                                                     \
    ENTRY(embed_##NAME)                                                                                                \
    ENTRY(product_1_##NAME)                                                                                            \
    ENTRY(product_4_##NAME)                                                                                            \
    ENTRY(product_8_##NAME)                                                                                            \
    ENTRY(product_many_##NAME)
#define HEADS_ENTRY(E, NAME) ENTRY(heads_##NAME)
#define ATTENTION_ENTRIES(E, NAME, D)                                                                                  \
    ENTRY(attend_##NAME##_##D##_1x1)                                                                                   \
    ENTRY(attend_##NAME##_##D##_1x4)                                                                                   \
    ENTRY(attend_##NAME##_##D##_8x1)                                                                                   \
    ENTRY(attend_##NAME##_##D##_2x4)

// A kernel with faults, each chosen by a parameter, for the tests of the emulator.
struct FaultParams {
    u32 fault;
};
enum : u32 { FAULT_DIVERGED = 1, FAULT_RACE = 2, FAULT_RANGE = 3, FAULT_ALIGNMENT = 4 };
KERNEL(faulty, 64)(INOUT(float, x, 0), PARAMS(FaultParams, p, 1) INDICES)
{
    SHARED(float, s, 64);
    s[THREAD] = (float)THREAD;
    if (p.fault == FAULT_DIVERGED && THREAD >= 40) {
        return;
    }
    if (p.fault != FAULT_RACE) {
        BARRIER();
    }
    if (p.fault == FAULT_RANGE) {
        s[THREAD + 1] = 0.0f;
    }
    if (p.fault == FAULT_ALIGNMENT) {
        x[0] = load4(x + 1).x;
    }
    x[THREAD] = s[(THREAD + 63) % 64];
}

static const emu::Entry ENTRIES[] = {
    ENTRY(norm_rows) ENTRY(add_rows) ENTRY(add_bias) ENTRY(gate) ENTRY(logits) ENTRY(gather_rows) ENTRY(arg_max)
    ENTRY(combine) WEIGHT_TYPES(WEIGHT_ENTRIES) CACHES(HEADS_ENTRY) WIDTHS(ATTENTION_ENTRIES, half, f16)
    WIDTHS(ATTENTION_ENTRIES, float, f32) ENTRY(faulty)};

// The entry of kernel `name`, null if there is none, with its threads and number of arguments.
extern "C" const void *exsa_emulated_find(const char *name, uint32_t *threads, uint32_t *arguments)
{
    for (const emu::Entry &e : ENTRIES) {
        if (strcmp(e.name, name) == 0) {
            *threads = e.threads;
            *arguments = e.arguments;
            return &e;
        }
    }
    return nullptr;
}

// Runs an entry. Returns 0, or 1 with a message in `error`.
extern "C" int exsa_emulated_launch(const void *entry, const uint32_t *grid, uint64_t seed, int races, void *const *args,
                                    char *error, size_t capacity)
{
    emu::Options options;
    options.seed = seed;
    options.races = races != 0;
    const std::string message = emu::launch(*(const emu::Entry *)entry, grid, options, args);
    if (message.empty()) return 0;
    const size_t n = message.size() < capacity ? message.size() : capacity - 1;
    memcpy(error, message.data(), n);
    error[n] = 0;
    return 1;
}
