// Quantizes rows by ggml's own quantizer, for comparisons with Exsa's (exsa-quant/examples/errors.rs), and dequantizes
// blocks by ggml's reference code (tools/quant_vectors.py).
//
//   ggml_quantize TYPE COLUMNS VALUES IMPORTANCE|- OUT
//   ggml_quantize TYPE BLOCKS OUT
//
// TYPE is ggml's number of the type; the files hold raw f32 or blocks. To build, with L = a folder of llama.cpp
// and G = a build of it that holds libggml-base.a:
//
//   cc -O2 -I L/ggml/include tools/ggml_quantize.c G/libggml-base.a -lstdc++ -lm -lpthread -ldl -o ggml_quantize
#include "ggml.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float *load(const char *path, long *count) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    fseek(file, 0, SEEK_END);
    *count = ftell(file) / 4;
    rewind(file);
    float *values = malloc(*count * 4 + 1);
    if (fread(values, 4, *count, file) != (size_t) *count) { perror(path); exit(1); }
    fclose(file);
    return values;
}

static int store(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes) { perror(path); return 1; }
    return fclose(file);
}

static int dequantize(enum ggml_type type, const char *in, const char *out) {
    long words;
    void *blocks = load(in, &words);
    long count = words * 4 / ggml_type_size(type) * ggml_blck_size(type);
    float *values = malloc(count * sizeof *values + 1);
    ggml_get_type_traits(type)->to_float(blocks, values, count);
    return store(out, values, count * sizeof *values);
}

int main(int argc, char **argv) {
    if (argc == 4) return dequantize(atoi(argv[1]), argv[2], argv[3]);
    if (argc != 6) { fprintf(stderr, "usage: ggml_quantize TYPE COLUMNS VALUES IMPORTANCE|- OUT\n"); return 2; }
    enum ggml_type type = atoi(argv[1]);
    long columns = atol(argv[2]), count, columns_found;
    float *values = load(argv[3], &count);
    float *importance = strcmp(argv[4], "-") ? load(argv[4], &columns_found) : NULL;
    if (importance && columns_found != columns) { fprintf(stderr, "importance has %ld numbers\n", columns_found); return 1; }
    long rows = count / columns;
    size_t bytes = rows * ggml_row_size(type, columns);
    void *out = malloc(bytes + 1);
    ggml_quantize_chunk(type, values, out, 0, rows, columns, importance);
    return store(argv[5], out, bytes);
}
