// Lists the types that llama.cpp's quantizer gives the tensors of a GGUF, for exsa-quant/tests/data/mixtures.txt.
//
//   llama_types IN FILE_TYPE IMPORTANCE(0|1) OUT
//
// IN holds F32 tensors; FILE_TYPE is the number of general.file_type. With importance, every tensor has that of equal
// columns. OUT is the quantized file. To build, with L = a folder of llama.cpp and G = a build of its static libraries:
//
//   cc -O2 -I L/include -I L/ggml/include tools/llama_types.c G/libllama.a G/libggml*.a -lstdc++ -lm -lpthread -ldl
#include "gguf.h"
#include "ggml.h"
#include "llama.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: llama_types IN FILE_TYPE 0|1 OUT\n"); return 2; }
    llama_backend_init();
    struct llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = atoi(argv[2]);
    params.nthread = 1;
    struct ggml_context *tensors = NULL;
    struct gguf_init_params load = {.no_alloc = true, .ctx = &tensors};
    struct gguf_context *in = gguf_init_from_file(argv[1], load);
    if (!in) return 1;
    long count = gguf_get_n_tensors(in);
    struct llama_model_imatrix_data *matrix = calloc(count + 1, sizeof *matrix);
    for (long i = 0; i < count; i++) {
        struct ggml_tensor *tensor = ggml_get_tensor(tensors, gguf_get_tensor_name(in, i));
        size_t size = tensor->ne[0] * tensor->ne[2];
        float *ones = malloc(size * sizeof *ones);
        for (size_t j = 0; j < size; j++) ones[j] = 1;
        matrix[i] = (struct llama_model_imatrix_data) {.name = tensor->name, .data = ones, .size = size};
    }
    if (atoi(argv[3])) params.imatrix = (void *) matrix;
    if (llama_model_quantize(argv[1], argv[4], &params)) return 1;
    struct gguf_init_params read = {.no_alloc = true, .ctx = NULL};
    struct gguf_context *out = gguf_init_from_file(argv[4], read);
    if (!out) return 1;
    for (long i = 0; i < count; i++) {
        printf("%s%d", i ? "," : "", gguf_get_tensor_type(out, gguf_find_tensor(out, gguf_get_tensor_name(in, i))));
    }
    printf("\n");
    return 0;
}
