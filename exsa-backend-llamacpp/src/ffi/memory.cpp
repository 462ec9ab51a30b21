// C interface to llama.cpp's memory breakdown, which has a C++ interface alone.
//
// The declarations repeat those of llama.cpp's src/llama-ext.h, which no build of llama-cpp-sys-2 installs. That crate's
// version is pinned, and a test compares the sizes with those in llama.cpp's log.

#include <cstddef>
#include <cstdint>
#include <map>

struct llama_context;
struct ggml_backend_buffer_type;

struct llama_memory_breakdown_data {
    size_t model;   // weights
    size_t context; // KV and recurrent states
    size_t compute; // buffers of the graph
};

std::map<ggml_backend_buffer_type *, llama_memory_breakdown_data> llama_get_memory_breakdown(const llama_context * ctx);

// Sums the bytes of `ctx` over all devices into `out`: weights, KV, compute buffers. False if that failed.
extern "C" bool exsa_llama_memory(const llama_context * ctx, uint64_t out[3]) {
    try {
        out[0] = out[1] = out[2] = 0;
        for (const auto & entry : llama_get_memory_breakdown(ctx)) {
            out[0] += entry.second.model;
            out[1] += entry.second.context;
            out[2] += entry.second.compute;
        }
        return true;
    } catch (...) {
        return false;
    }
}
