// Prelude for Metal Shading Language 2.4 or later. Compile with fast math off, or on: the kernels use no inf
// or NaN.
#include <metal_stdlib>
using namespace metal;

typedef uchar u8;
typedef signed char i8;
typedef ushort u16;
typedef uint u32;
typedef ulong u64;

// Kernels and arguments. Host: setBuffer for IN, OUT, INOUT; setBytes (up to 4 KiB) for PARAMS.
#define KERNEL(name, threads) [[max_total_threads_per_threadgroup(threads)]] kernel void name
#define IN(T, name, n) device const T *name [[buffer(n)]]
#define OUT(T, name, n) device T *name [[buffer(n)]]
#define INOUT(T, name, n) device T *name [[buffer(n)]]
#define PARAMS(T, name, n) constant T &name [[buffer(n)]]
#define INDICES                                                                                                        \
    , uint3 group_index_ [[threadgroup_position_in_grid]], uint thread_index_ [[thread_index_in_threadgroup]],         \
        uint lane_index_ [[thread_index_in_simdgroup]], uint simd_index_ [[simdgroup_index_in_threadgroup]]
#define GROUP_X (group_index_.x)
#define GROUP_Y (group_index_.y)
#define GROUP_Z (group_index_.z)
#define THREAD (thread_index_)
#define LANE (lane_index_)
#define SIMD (simd_index_)

// Functions and address spaces.
#define FUNC static inline
#define MEMBER static inline
#define DEVICE_PTR(T) device T *
#define SHARED_PTR(T) threadgroup T *
#define PARAMS_REF(T) constant T &
#ifndef SHARED // a syntax check without Apple's compiler needs another spelling
#define SHARED(T, name, n) threadgroup T name[n]
#endif

// Synchronization. simd_sum and simd_max are Metal's own.
#define BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
#define SIMD_BARRIER() simdgroup_barrier(mem_flags::mem_threadgroup)

// Arithmetic.
#define UNROLL _Pragma("clang loop unroll(full)")
#define MIN_U(a, b) metal::min((u32)(a), (u32)(b))
#define MIN_F(a, b) metal::min((float)(a), (float)(b))
#define MAX_F(a, b) metal::max((float)(a), (float)(b))
#define EXP(x) metal::precise::exp(x)
#define RSQRT(x) metal::precise::rsqrt(x)

FUNC float bits_to_f32(u32 bits) { return as_type<float>(bits); }
FUNC float to_float(half h) { return float(h); }
FUNC float to_float(float f) { return f; }
FUNC half to_half(float f) { return half(f); }
// Addresses are multiples of four elements' size.
FUNC float4 load4(DEVICE_PTR(const half) p) { return float4(*(device const half4 *)p); }
FUNC float4 load4(DEVICE_PTR(const float) p) { return *(device const float4 *)p; }
