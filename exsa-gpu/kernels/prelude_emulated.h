// Prelude for the emulator: C++17, g++ or clang++, a little-endian host. Compile with -fno-strict-aliasing.
#pragma once
#include "emulator.h"
#include <cmath>
#include <cstdint>
#include <cstring>

typedef uint8_t u8;
typedef int8_t i8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
struct half {
    u16 bits;
};
struct float4 {
    float x, y, z, w;
};

// Kernels and arguments. name##_threads is the threadgroup's size.
#define KERNEL(name, threads)                                                                                          \
    enum : u32 { name##_threads = threads };                                                                           \
    static void name
#define IN(T, name, n) const T *name
#define OUT(T, name, n) T *name
#define INOUT(T, name, n) T *name
#define PARAMS(T, name, n) const T &name
#define INDICES
#define GROUP_X (emu::group().x)
#define GROUP_Y (emu::group().y)
#define GROUP_Z (emu::group().z)
#define THREAD (emu::group().current)
#define LANE (emu::group().current % emu::WIDTH)
#define SIMD (emu::group().current / emu::WIDTH)

// Functions and address spaces.
#define FUNC static inline
#define MEMBER static inline
#define DEVICE_PTR(T) T *
#define SHARED_PTR(T) emu::Shared<T>
#define PARAMS_REF(T) const T &
#define SHARED(T, name, n) emu::Shared<T> name(n)

// Synchronization.
#define BARRIER() emu::group().barrier(__LINE__)
#define SIMD_BARRIER() emu::group().simd_barrier(__LINE__)

// Arithmetic.
#define UNROLL
#define MIN_U(a, b) emu_min<u32>((u32)(a), (u32)(b))
#define MIN_F(a, b) emu_min<float>((float)(a), (float)(b))
#define MAX_F(a, b) emu_max<float>((float)(a), (float)(b))
#define EXP(x) std::exp((float)(x))
#define RSQRT(x) (1.0f / std::sqrt((float)(x)))

template <class T> static inline T emu_min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T emu_max(T a, T b) { return a < b ? b : a; }

// The order of the CUDA prelude's butterfly.
#define simd_sum(v)                                                                                                    \
    emu::group().exchange((float)(v), "simd_sum", __LINE__, [](float *all) {                                           \
        for (u32 n = 16; n > 0; n /= 2)                                                                                \
            for (u32 i = 0; i < n; ++i) all[i] += all[i + n];                                                          \
        return all[0];                                                                                                 \
    })
#define simd_max(v)                                                                                                    \
    emu::group().exchange((float)(v), "simd_max", __LINE__, [](float *all) {                                           \
        float top = all[0];                                                                                            \
        for (u32 i = 1; i < emu::WIDTH; ++i) top = emu_max(top, all[i]);                                               \
        return top;                                                                                                    \
    })

static inline float bits_to_f32(u32 bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline u32 f32_to_bits(float f)
{
    u32 bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}
static inline float to_float(half h)
{
    const u32 sign = (u32)(h.bits & 0x8000) << 16, magnitude = h.bits & 0x7fff;
    if (magnitude >= 0x7c00) return bits_to_f32(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    const float f = bits_to_f32(magnitude << 13) * 0x1p112f; // also right for subnormal values
    return bits_to_f32(sign | f32_to_bits(f));
}
static inline float to_float(float f) { return f; }
static inline half to_half(float f) // to nearest, ties to even
{
    const u32 bits = f32_to_bits(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return half{(u16)(sign | 0x7e00)};
    if (magnitude >= 0x477ff000) return half{(u16)(sign | 0x7c00)};
    if (magnitude < 0x38800000) // below 2^-14: the float unit rounds to a multiple of 2^-24
        return half{(u16)(sign | (f32_to_bits(bits_to_f32(magnitude) + 0.5f) - 0x3f000000))};
    return half{(u16)(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13))};
}
static inline void emu_check_aligned(const void *p, size_t bytes)
{
    if ((uintptr_t)p % bytes) emu::group().fail("load4: address is no multiple of " + std::to_string(bytes));
}
static inline float4 load4(const half *p)
{
    emu_check_aligned(p, 8);
    return {to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
}
static inline float4 load4(const float *p)
{
    emu_check_aligned(p, 16);
    return {p[0], p[1], p[2], p[3]};
}
