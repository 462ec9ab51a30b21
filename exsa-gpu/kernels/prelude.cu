// Prelude for CUDA, compiled by NVRTC at run time, sm_70 or later. Includes no header: half is a struct of 16
// bits whose conversions are single PTX instructions, so neither cuda_fp16.h nor a toolkit is needed.
typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct half {
    u16 bits;
};

// Kernels and arguments. Host: cuLaunchKernel with one pointer per argument; PARAMS is passed by value.
#define KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads) name
#define IN(T, name, n) const T *__restrict__ name
#define OUT(T, name, n) T *__restrict__ name
#define INOUT(T, name, n) T *name
#define PARAMS(T, name, n) const __grid_constant__ T name
#define INDICES
#define GROUP_X (blockIdx.x)
#define GROUP_Y (blockIdx.y)
#define GROUP_Z (blockIdx.z)
#define THREAD (threadIdx.x)
#define LANE (threadIdx.x % 32u)
#define SIMD (threadIdx.x / 32u)

// Functions and address spaces. Free functions are not static: unused ones would be warned of.
#define FUNC __device__ __forceinline__
#define MEMBER static __device__ __forceinline__
#define DEVICE_PTR(T) T *
#define SHARED_PTR(T) T *
#define PARAMS_REF(T) const T &
#define SHARED(T, name, n) __shared__ T name[n]

// Synchronization. The masks demand all 32 lanes.
#define BARRIER() __syncthreads()
#define SIMD_BARRIER() __syncwarp()

// Arithmetic.
#define UNROLL _Pragma("unroll")
#define MIN_U(a, b) min((u32)(a), (u32)(b))
#define MIN_F(a, b) fminf(a, b)
#define MAX_F(a, b) fmaxf(a, b)
#define EXP(x) expf(x)
#define RSQRT(x) rsqrtf(x)

FUNC float simd_sum(float v)
{
    UNROLL for (int i = 16; i > 0; i /= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
    return v;
}
FUNC float simd_max(float v)
{
    UNROLL for (int i = 16; i > 0; i /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, i));
    return v;
}

FUNC float bits_to_f32(u32 bits) { return __uint_as_float(bits); }
FUNC float half_bits_to_f32(u16 h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
FUNC float to_float(half h) { return half_bits_to_f32(h.bits); }
FUNC float to_float(float f) { return f; }
FUNC half to_half(float f)
{
    half h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(f));
    return h;
}
// Addresses are multiples of four elements' size.
FUNC float4 load4(DEVICE_PTR(const half) p)
{
    const uint2 w = *(const uint2 *)p;
    return make_float4(half_bits_to_f32((u16)w.x), half_bits_to_f32((u16)(w.x >> 16)), half_bits_to_f32((u16)w.y),
                       half_bits_to_f32((u16)(w.y >> 16)));
}
FUNC float4 load4(DEVICE_PTR(const float) p) { return *(const float4 *)p; }
