// Rules of the kernel source, which Metal, CUDA and the emulator compile after a prelude each
// (prelude.metal, prelude.cu, prelude_emulated.h):
//
//   * a SIMD group has 32 lanes, and all 32 reach every simd_* call and SIMD_BARRIER;
//   * every thread of a threadgroup reaches every BARRIER;
//   * GROUP_X, GROUP_Y, GROUP_Z, THREAD, LANE, SIMD exist only in a kernel body; functions take arguments;
//   * names are none of Metal's keywords (thread, device, constant, kernel, vertex, fragment, half, ...);
//   * SHARED stands only in the outermost scope of a kernel;
//   * half is storage only: convert, compute in f32, convert back;
//   * literals have the f of f32: Metal has no double;
//   * no infinities and no NaN as markers, since fast math assumes that there are none;
//   * IN and OUT do not overlap other arguments; what is updated in place, or may overlap, is INOUT.
//
// Parameter structs are mirrored in src/kernel/params.rs.

enum : u32 { SIMD_WIDTH = 32 };

// Words of a view: attention.inl.
enum : u32 { VIEW_WORDS = 5 };

// Below every score, and finite.
#define LOWEST (-3.0e38f)

struct Values8 {
    float v[8];
};

// tanh by the exponential, which saturates before it overflows. Absolute error below 2e-7.
FUNC float tanh_of(float x)
{
    const float bounded = MIN_F(MAX_F(x, -15.0f), 15.0f);
    return 1.0f - 2.0f / (EXP(2.0f * bounded) + 1.0f);
}

// 1 / (1 + exp(-x)).
FUNC float sigmoid(float x) { return 1.0f / (1.0f + EXP(MIN_F(-x, 80.0f))); }
