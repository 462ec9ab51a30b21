// Weights in the block formats of GGUF files: a struct per type with
//   LEN     values of a block, a multiple of 8
//   BYTES   bytes of a block
//   load    8 consecutive values, chunk c of a block
// Formulas and fields are those of exsa-quant's modules `format`. A row begins at a multiple of 2 bytes where
// BYTES is even, of 4 where BYTES is a multiple of 4.

FUNC u32 u16_at(DEVICE_PTR(const u8) p) { return *(DEVICE_PTR(const u16))p; }
FUNC u32 u32_at(DEVICE_PTR(const u8) p) { return *(DEVICE_PTR(const u32))p; }
FUNC float half_at(DEVICE_PTR(const u8) p) { return to_float(*(DEVICE_PTR(const half))p); }
// Of 2-byte and of 1-byte alignment.
FUNC u32 u32_at_2(DEVICE_PTR(const u8) p) { return u16_at(p) | u16_at(p + 2) << 16; }
FUNC u32 u32_at_1(DEVICE_PTR(const u8) p)
{
    return (u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

// d * byte + m for the bytes of a and b.
FUNC Values8 scaled_bytes(u32 a, u32 b, float d, float m)
{
    Values8 out;
    UNROLL for (u32 i = 0; i < 4; ++i) {
        out.v[i] = d * (float)((a >> (8 * i)) & 0xffu) + m;
        out.v[i + 4] = d * (float)((b >> (8 * i)) & 0xffu) + m;
    }
    return out;
}

// Bit i of 4 bits as bit 0 of byte i.
FUNC u32 spread_bits(u32 bits) { return ((bits & 15u) * 0x00204081u) & 0x01010101u; }

struct WeightF32 {
    enum : u32 { LEN = 8, BYTES = 32 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32)
    {
        Values8 out;
        UNROLL for (u32 i = 0; i < 8; ++i) {
            out.v[i] = bits_to_f32(u32_at(block + 4 * i));
        }
        return out;
    }
};

struct WeightF16 {
    enum : u32 { LEN = 8, BYTES = 16 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32)
    {
        Values8 out;
        UNROLL for (u32 i = 0; i < 8; ++i) {
            out.v[i] = half_at(block + 2 * i);
        }
        return out;
    }
};

struct WeightBF16 {
    enum : u32 { LEN = 8, BYTES = 16 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32)
    {
        Values8 out;
        UNROLL for (u32 i = 0; i < 8; ++i) {
            out.v[i] = bits_to_f32(u16_at(block + 2 * i) << 16);
        }
        return out;
    }
};

// Blocks of 32 with nibbles: byte i holds value i in its low and value i + 16 in its high half.
struct WeightQ4_0 {
    enum : u32 { LEN = 32, BYTES = 18 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const float d = half_at(block);
        const u32 shift = c / 2 * 4;
        const u32 a = u32_at_2(block + 2 + c % 2 * 8) >> shift, b = u32_at_2(block + 6 + c % 2 * 8) >> shift;
        return scaled_bytes(a & 0x0f0f0f0fu, b & 0x0f0f0f0fu, d, -8.0f * d);
    }
};

struct WeightQ4_1 {
    enum : u32 { LEN = 32, BYTES = 20 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const u32 shift = c / 2 * 4;
        const u32 a = u32_at(block + 4 + c % 2 * 8) >> shift, b = u32_at(block + 8 + c % 2 * 8) >> shift;
        return scaled_bytes(a & 0x0f0f0f0fu, b & 0x0f0f0f0fu, half_at(block), half_at(block + 2));
    }
};

// Bit i of the fifth bits belongs to value i.
struct WeightQ5_0 {
    enum : u32 { LEN = 32, BYTES = 22 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const float d = half_at(block);
        const u32 shift = c / 2 * 4;
        const u32 fifth = block[2 + c];
        const u32 a = u32_at_2(block + 6 + c % 2 * 8) >> shift, b = u32_at_2(block + 10 + c % 2 * 8) >> shift;
        return scaled_bytes((a & 0x0f0f0f0fu) | spread_bits(fifth) << 4, (b & 0x0f0f0f0fu) | spread_bits(fifth >> 4) << 4,
                            d, -16.0f * d);
    }
};

struct WeightQ5_1 {
    enum : u32 { LEN = 32, BYTES = 24 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const u32 shift = c / 2 * 4;
        const u32 fifth = block[4 + c];
        const u32 a = u32_at(block + 8 + c % 2 * 8) >> shift, b = u32_at(block + 12 + c % 2 * 8) >> shift;
        return scaled_bytes((a & 0x0f0f0f0fu) | spread_bits(fifth) << 4, (b & 0x0f0f0f0fu) | spread_bits(fifth >> 4) << 4,
                            half_at(block), half_at(block + 2));
    }
};

// Signed bytes: with the upper bit turned over they are q + 128.
struct WeightQ8_0 {
    enum : u32 { LEN = 32, BYTES = 34 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const float d = half_at(block);
        const u32 a = u32_at_2(block + 2 + 8 * c), b = u32_at_2(block + 6 + 8 * c);
        return scaled_bytes(a ^ 0x80808080u, b ^ 0x80808080u, d, -128.0f * d);
    }
};

// Super-blocks of 256. Pairs of bits: each half has 32 bytes, whose bits 0 and 1 belong to its first 32
// values, bits 2 and 3 to the next 32, and so on. Chunk c reads 8 bytes from this place on, shifted by this.
FUNC u32 pair_place(u32 c) { return c / 16 * 32 + c % 4 * 8; }
FUNC u32 pair_shift(u32 c) { return c % 16 / 4 * 2; }

struct WeightQ2_K {
    enum : u32 { LEN = 256, BYTES = 84 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const u32 scale = block[c / 2];
        DEVICE_PTR(const u8) q = block + 16 + pair_place(c);
        const u32 a = u32_at(q) >> pair_shift(c), b = u32_at(q + 4) >> pair_shift(c);
        return scaled_bytes(a & 0x03030303u, b & 0x03030303u, half_at(block + 80) * (float)(scale & 15u),
                            -(half_at(block + 82) * (float)(scale >> 4)));
    }
};

struct WeightQ3_K {
    enum : u32 { LEN = 256, BYTES = 110 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const u32 group = c / 2;
        const u32 low = ((u32)block[96 + group % 8] >> (group / 8 * 4)) & 15u;
        const u32 high = ((u32)block[104 + group % 4] >> (group / 4 * 2)) & 3u;
        const float d = half_at(block + 108) * ((float)(low | high << 4) - 32.0f);
        DEVICE_PTR(const u8) q = block + 32 + pair_place(c);
        DEVICE_PTR(const u8) third = block + c % 4 * 8;
        const u32 a = (u32_at_2(q) >> pair_shift(c)) & 0x03030303u, b = (u32_at_2(q + 4) >> pair_shift(c)) & 0x03030303u;
        const u32 e = (u32_at_2(third) >> (c / 4)) & 0x01010101u, f = (u32_at_2(third + 4) >> (c / 4)) & 0x01010101u;
        return scaled_bytes(a | e << 2, b | f << 2, d, -4.0f * d);
    }
};

// Scale (low 16 bits) and minimum (high 16 bits) of group g of Q4_K and Q5_K, 6 bits each, in 12 bytes.
FUNC u32 scale_and_min(DEVICE_PTR(const u8) packed, u32 g)
{
    if (g < 4) {
        return (packed[g] & 63u) | (packed[g + 4] & 63u) << 16;
    }
    const u32 low = packed[g + 4], scale = packed[g - 4], minimum = packed[g];
    return (low & 15u) | (scale >> 6) << 4 | ((low >> 4) | (minimum >> 6) << 4) << 16;
}

struct WeightQ4_K {
    enum : u32 { LEN = 256, BYTES = 144 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const u32 g = c / 4;
        const u32 s = scale_and_min(block + 4, g);
        DEVICE_PTR(const u8) q = block + 16 + g / 2 * 32 + c % 4 * 8;
        const u32 a = u32_at(q) >> (g % 2 * 4), b = u32_at(q + 4) >> (g % 2 * 4);
        return scaled_bytes(a & 0x0f0f0f0fu, b & 0x0f0f0f0fu, half_at(block) * (float)(s & 63u),
                            -(half_at(block + 2) * (float)(s >> 16)));
    }
};

struct WeightQ5_K {
    enum : u32 { LEN = 256, BYTES = 176 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const u32 g = c / 4;
        const u32 s = scale_and_min(block + 4, g);
        DEVICE_PTR(const u8) q = block + 48 + g / 2 * 32 + c % 4 * 8;
        DEVICE_PTR(const u8) fifth = block + 16 + c % 4 * 8;
        const u32 a = (u32_at(q) >> (g % 2 * 4)) & 0x0f0f0f0fu, b = (u32_at(q + 4) >> (g % 2 * 4)) & 0x0f0f0f0fu;
        const u32 e = (u32_at(fifth) >> g) & 0x01010101u, f = (u32_at(fifth + 4) >> g) & 0x01010101u;
        return scaled_bytes(a | e << 4, b | f << 4, half_at(block) * (float)(s & 63u),
                            -(half_at(block + 2) * (float)(s >> 16)));
    }
};

struct WeightQ6_K {
    enum : u32 { LEN = 256, BYTES = 210 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const float d = half_at(block + 208) * (float)(i8)block[192 + c / 2];
        DEVICE_PTR(const u8) low = block + c / 16 * 64 + c % 8 * 8;
        DEVICE_PTR(const u8) high = block + 128 + pair_place(c);
        const u32 shift = c % 16 / 8 * 4;
        const u32 a = (u32_at_2(low) >> shift) & 0x0f0f0f0fu, b = (u32_at_2(low + 4) >> shift) & 0x0f0f0f0fu;
        const u32 e = (u32_at_2(high) >> pair_shift(c)) & 0x03030303u;
        const u32 f = (u32_at_2(high + 4) >> pair_shift(c)) & 0x03030303u;
        return scaled_bytes(a | e << 4, b | f << 4, d, -32.0f * d);
    }
};

// d * table[nibble] for the nibbles of a and b, one in each byte. The table's 16 signed bytes are `low` and
// `high`.
FUNC Values8 looked_up(u32 a, u32 b, float d, u64 low, u64 high)
{
    Values8 out;
    UNROLL for (u32 i = 0; i < 4; ++i) {
        const u32 x = (a >> (8 * i)) & 15u, y = (b >> (8 * i)) & 15u;
        out.v[i] = d * (float)(i8)(u8)((x < 8 ? low : high) >> (x % 8 * 8));
        out.v[i + 4] = d * (float)(i8)(u8)((y < 8 ? low : high) >> (y % 8 * 8));
    }
    return out;
}

// -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define IQ4_LOW ((u64)0xf6eaddcfu << 32 | 0xbfad9881u)
#define IQ4_HIGH ((u64)0x71594535u << 32 | 0x26190d01u)
// 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12
#define FP4_LOW ((u64)0x0c080604u << 32 | 0x03020100u)
#define FP4_HIGH ((u64)0xf4f8fafcu << 32 | 0xfdfeff00u)

struct WeightIQ4_NL {
    enum : u32 { LEN = 32, BYTES = 18 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const u32 shift = c / 2 * 4;
        const u32 a = u32_at_2(block + 2 + c % 2 * 8) >> shift, b = u32_at_2(block + 6 + c % 2 * 8) >> shift;
        return looked_up(a, b, half_at(block), IQ4_LOW, IQ4_HIGH);
    }
};

struct WeightIQ4_XS {
    enum : u32 { LEN = 256, BYTES = 136 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        const u32 g = c / 4;
        const u32 low = ((u32)block[4 + g / 2] >> (g % 2 * 4)) & 15u;
        const u32 high = (u16_at(block + 2) >> (2 * g)) & 3u;
        const float d = half_at(block) * ((float)(low | high << 4) - 32.0f);
        DEVICE_PTR(const u8) q = block + 8 + 16 * g + c % 2 * 8;
        const u32 shift = c % 4 / 2 * 4;
        return looked_up(u32_at(q) >> shift, u32_at(q + 4) >> shift, d, IQ4_LOW, IQ4_HIGH);
    }
};

struct WeightMXFP4 {
    enum : u32 { LEN = 32, BYTES = 17 };
    MEMBER Values8 load(DEVICE_PTR(const u8) block, u32 c)
    {
        // Half of 2^(e - 127), since the table is doubled; the two smallest are subnormal.
        const u32 e = block[0];
        const float d = bits_to_f32(e < 2 ? 0x00200000u << e : (e - 1) << 23);
        const u32 shift = c / 2 * 4;
        const u32 a = u32_at_1(block + 1 + c % 2 * 8) >> shift, b = u32_at_1(block + 5 + c % 2 * 8) >> shift;
        return looked_up(a, b, d, FP4_LOW, FP4_HIGH);
    }
};
