/*
 * The C API of Exsa, an LLM inference engine. Made by scripts/make-header from exsa-capi/src: do not edit.
 *
 * Every function checks its pointers for null, texts for UTF-8 and lengths for their range, and reports an
 * ExsaStatus; exsa_last_error has the message for the calling thread. "Safety" lists what it cannot check.
 * Texts that go in are copied and end with NUL. Handles may be freed in any order, each once.
 */

#ifndef EXSA_H
#define EXSA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Version of this header; exsa_abi_version has that of the library. */
#define EXSA_ABI_VERSION 1

// Result of a call. Negative values are failures, whose message exsa_last_error has.
enum ExsaStatus
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // The call did its work.
  EXSA_STATUS_OK = 0,
  // Nothing has come within the timeout.
  EXSA_STATUS_PENDING = 1,
  // The answer has ended; everything was read.
  EXSA_STATUS_END = 2,
  // A pointer is null that must not be.
  EXSA_STATUS_NULL_POINTER = -1,
  // A text is not UTF-8.
  EXSA_STATUS_INVALID_UTF8 = -2,
  // An argument is out of its range, or does not fit the state of the handle.
  EXSA_STATUS_INVALID_ARGUMENT = -3,
  // The caller's buffer is too small; the length that is needed was stored.
  EXSA_STATUS_BUFFER_TOO_SMALL = -4,
  // The model or the adapter could not be loaded.
  EXSA_STATUS_LOAD = -5,
  // The request was refused: it does not fit the model or its limits.
  EXSA_STATUS_REFUSED = -6,
  // The request was refused because too many are waiting. The same request may be accepted later.
  EXSA_STATUS_BUSY = -7,
  // The request failed after it was accepted.
  EXSA_STATUS_FAILED = -8,
  // A defect of the library: it panicked. The handle may be freed and should not be used otherwise.
  EXSA_STATUS_PANIC = -9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ExsaStatus ExsaStatus;
#else
typedef int32_t ExsaStatus;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Reason for the end of an answer.
enum ExsaFinish
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // The answer has not ended, its end was not read, or another thread is reading it.
  EXSA_FINISH_NONE = 0,
  // The model ended its answer, or a stop string appeared.
  EXSA_FINISH_STOP = 1,
  // The maximum of tokens was generated, or the context was full.
  EXSA_FINISH_LENGTH = 2,
  // A call of a tool was complete.
  EXSA_FINISH_TOOL_CALL = 3,
  // A banned string could not be avoided.
  EXSA_FINISH_BANNED_STRING = 4,
  // The request was cancelled.
  EXSA_FINISH_CANCELLED = 5,
  // A time limit of the request passed.
  EXSA_FINISH_TIMEOUT = 6,
  // The request failed.
  EXSA_FINISH_FAILED = 7,
  // A reason that this header does not know.
  EXSA_FINISH_OTHER = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ExsaFinish ExsaFinish;
#else
typedef int32_t ExsaFinish;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// An answer in the making: a handle of exsa_engine_submit. One thread at a time may read it; any thread may
// cancel it meanwhile. It may be freed before or after its engine.
typedef struct ExsaAnswer ExsaAnswer;

// A loaded model and the thread that serves it: a handle of exsa_engine_load. Any number of threads may use
// it at the same time. It may be freed before its answers, which then go on to their ends.
typedef struct ExsaEngine ExsaEngine;

// Options of an engine: a handle of exsa_options_new. What is not set keeps its default. One thread at a
// time may use it.
typedef struct ExsaOptions ExsaOptions;

// A request for generated text: a handle of exsa_request_new or exsa_request_from_json. It can be submitted
// as often as wanted, to any engine. One thread at a time may use it.
typedef struct ExsaRequest ExsaRequest;

// Tokens and times of a request. Later versions may add fields at the end.
typedef struct ExsaUsage {
  // Tokens of the prompt, BOS included.
  uint64_t prompt_tokens;
  // Prompt tokens whose KV was cached.
  uint64_t cached_tokens;
  // Tokens generated, the one that ended the answer included.
  uint64_t completion_tokens;
  // Seed that was used.
  uint64_t seed;
  // Seconds from submission to admission; negative if it was never admitted.
  double queue_seconds;
  // Seconds from submission to the first token; negative if there was none.
  double first_token_seconds;
  // Seconds from submission to the end.
  double total_seconds;
} ExsaUsage;

// Progress of loading: bytes loaded, bytes in all, and the pointer that was set with the function. Return
// true to go on, false to cancel the load. It is called by the thread that loads or by one of the library,
// never by two at one time, and not after the load.
typedef bool (*ExsaProgress)(uint64_t done, uint64_t total, void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Waits at most `timeout_ms` milliseconds for the next piece of text (0: not at all; negative: without a
// limit), and stores where it is and its length in bytes.
//
// Returns EXSA_STATUS_OK with a piece, EXSA_STATUS_PENDING if none came in time, EXSA_STATUS_END after the
// last, and EXSA_STATUS_FAILED once if the request failed. A piece is UTF-8, not empty, ends with NUL, and
// is valid until the next call that reads the answer or frees it. Joined, the pieces are the text of the
// first answer, without reasoning and calls of tools (exsa_answer_next_event). One thread at a time.
//
// # Safety
//
// `answer` is null or a handle that was not freed; `text` is null or has room for a pointer; `len` is null
// or has room for a size.
ExsaStatus exsa_answer_next(const struct ExsaAnswer *answer,
                            int64_t timeout_ms,
                            const char **text,
                            size_t *len);

// Like exsa_answer_next, for the next event as JSON: {"type": "token", ...}, also "reasoning", "tool_call",
// "malformed_tool_call", "prompt", "answer_finished" and at last "finished", whose "reason" has the error of
// a request that failed. Text of events that are read by it does not come by exsa_answer_next. One thread at
// a time.
//
// # Safety
//
// `answer` is null or a handle that was not freed; `json` is null or has room for a pointer; `len` is null
// or has room for a size.
ExsaStatus exsa_answer_next_event(const struct ExsaAnswer *answer,
                                  int64_t timeout_ms,
                                  const char **json,
                                  size_t *len);

// Cancels the request; no effect once it has ended. What was generated before, and the end, can still be
// read. Any thread, also while another one reads the answer.
//
// # Safety
//
// `answer` is null or a handle that was not freed.
ExsaStatus exsa_answer_cancel(const struct ExsaAnswer *answer);

// Reason for the end of the answer, once EXSA_STATUS_END or EXSA_STATUS_FAILED was read; EXSA_FINISH_NONE
// before, for a null answer, and while another thread reads. Any thread.
//
// # Safety
//
// `answer` is null or a handle that was not freed.
ExsaFinish exsa_answer_finish(const struct ExsaAnswer *answer);

// Stores tokens, times and seed of the request in `usage`, which has room for `size` bytes:
// sizeof(ExsaUsage). Bytes behind the fields that the library knows are zeroed; a smaller size is refused.
// Returns EXSA_STATUS_PENDING before the end was read. Any thread while none reads.
//
// # Safety
//
// `answer` is null or a handle that was not freed; `usage` is null or has room for `size` bytes.
ExsaStatus exsa_answer_usage(const struct ExsaAnswer *answer, struct ExsaUsage *usage, size_t size);

// Frees an answer; null is allowed. A request that still runs is cancelled.
//
// # Safety
//
// `answer` is null or a handle that was not freed and that no other thread uses.
void exsa_answer_free(struct ExsaAnswer *answer);

// Loads a GGUF file and starts an engine on it; returns when the model is loaded. `options` may be null. Any
// thread.
//
// # Safety
//
// `path` is null or ends with NUL; `options` is null or a handle that was not freed and that no other thread
// changes; `engine` is null or has room for a pointer.
ExsaStatus exsa_engine_load(const char *path, const struct ExsaOptions *options, struct ExsaEngine **engine);

// Loads a GGUF from memory; the bytes are copied. Otherwise as exsa_engine_load. Any thread.
//
// # Safety
//
// `bytes` has `len` elements, or is null with a length of 0; `options` is null or a handle that was not
// freed and that no other thread changes; `engine` is null or has room for a pointer.
ExsaStatus exsa_engine_load_bytes(const uint8_t *bytes,
                                  size_t len,
                                  const struct ExsaOptions *options,
                                  struct ExsaEngine **engine);

// Frees the handle of an engine; null is allowed. The engine ends with the last of its answers, and this
// call waits for that if none is left. Answers go on until their own handles are freed.
//
// # Safety
//
// `engine` is null or a handle that was not freed and that no other thread uses.
void exsa_engine_free(struct ExsaEngine *engine);

// Submits a request and returns at once with the handle of its answer. Any thread.
//
// # Safety
//
// `engine` and `request` are null or handles that were not freed, the request one that no other thread
// changes; `answer` is null or has room for a pointer.
ExsaStatus exsa_engine_submit(const struct ExsaEngine *engine,
                              const struct ExsaRequest *request,
                              struct ExsaAnswer **answer);

// Counts the tokens of a request's prompt, with the chat template and BOS. Any thread.
//
// # Safety
//
// `engine` and `request` are null or handles that were not freed, the request one that no other thread
// changes; `tokens` is null or has room for a size.
ExsaStatus exsa_engine_count_tokens(const struct ExsaEngine *engine,
                                    const struct ExsaRequest *request,
                                    size_t *tokens);

// Copies the token ids of a text to `tokens`, which has room for `capacity`, and stores their number in
// `len`, also where it returns EXSA_STATUS_BUFFER_TOO_SMALL. BOS and EOS are not added, and text that spells
// a control token stays text. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed; `input` is null or ends with NUL; `tokens` has room for
// `capacity` ids, or is null; `len` is null or has room for a size.
ExsaStatus exsa_engine_tokenize(const struct ExsaEngine *engine,
                                const char *input,
                                uint32_t *tokens,
                                size_t capacity,
                                size_t *len);

// Copies the text of token ids to `output`, which has room for `capacity` bytes, NUL included, and stores
// its length with NUL in `len`, also where it returns EXSA_STATUS_BUFFER_TOO_SMALL. Control tokens have no
// text; bytes that are not UTF-8 become U+FFFD. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed; `tokens` has `count` elements, or is null with a count of
// 0; `output` has room for `capacity` bytes, or is null; `len` is null or has room for a size.
ExsaStatus exsa_engine_detokenize(const struct ExsaEngine *engine,
                                  const uint32_t *tokens,
                                  size_t count,
                                  char *output,
                                  size_t capacity,
                                  size_t *len);

// Embeds `count` texts and waits for their vectors, which it copies to `values` one after the other, each
// with exsa_engine_embedding_width values and a length of 1. `capacity` is the room in values. A model that
// was not made for it needs exsa_options_set_pooling. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed; `texts` has `count` elements, each null or ending with
// NUL, or is null with a count of 0; `values` has room for `capacity` values, or is null.
ExsaStatus exsa_engine_embed(const struct ExsaEngine *engine,
                             const char *const *texts,
                             size_t count,
                             float *values,
                             size_t capacity);

// Loads an adapter (LoRA, a GGUF file) that requests can use from now on by its name; passes go on
// meanwhile. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed; the texts are null or end with NUL.
ExsaStatus exsa_engine_load_adapter(const struct ExsaEngine *engine, const char *name, const char *path);

// Unloads an adapter. Requests that use it go on with it. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed; `name` is null or ends with NUL.
ExsaStatus exsa_engine_unload_adapter(const struct ExsaEngine *engine, const char *name);

// Name of the model, from its file. Valid until the engine is freed; null for a null engine. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed.
const char *exsa_engine_model_name(const struct ExsaEngine *engine);

// Maximum tokens of one sequence, prompt and answer together; 0 for a null engine. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed.
size_t exsa_engine_context_tokens(const struct ExsaEngine *engine);

// Number of token ids, from 0; 0 for a null engine. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed.
size_t exsa_engine_vocabulary_size(const struct ExsaEngine *engine);

// Values of a text's vector; 0 for a null engine. Any thread.
//
// # Safety
//
// `engine` is null or a handle that was not freed.
size_t exsa_engine_embedding_width(const struct ExsaEngine *engine);

// Status of the last call of this thread that failed; EXSA_STATUS_OK if none has. Calls that succeed leave
// it.
ExsaStatus exsa_last_error_status(void);

// Message of the last call of this thread that failed: which argument or file was wrong, and what is
// allowed. Empty if none has failed; never null. Valid until the next call of this thread that fails, and
// not after the thread has ended.
const char *exsa_last_error(void);

// Makes options that are all at their defaults. Null if memory is short. Free them with exsa_options_free.
// Any thread.
struct ExsaOptions *exsa_options_new(void);

// Frees options; null is allowed. Engines loaded with them go on.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses.
void exsa_options_free(struct ExsaOptions *options);

// Sets the threads that load the model and compute; 0 for the default, one for each physical core.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_options_set_threads(struct ExsaOptions *options, size_t threads);

// Sets the maximum tokens of one sequence, prompt and answer together; by default the context length of the
// model.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_options_set_context_tokens(struct ExsaOptions *options, size_t tokens);

// Sets the maximum sequences that are computed at one time; 16 by default.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_options_set_sequences(struct ExsaOptions *options, size_t sequences);

// Sets the maximum tokens of one forward pass; 512 by default.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_options_set_batch_tokens(struct ExsaOptions *options, size_t tokens);

// Sets the maximum requests that wait; 1,024 by default. Further ones are refused with EXSA_STATUS_BUSY.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_options_set_queue(struct ExsaOptions *options, size_t requests);

// Sets the maximum bytes of the KV cache; 1 GiB by default.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_options_set_kv_bytes(struct ExsaOptions *options, uint64_t bytes);

// Refuses a model whose estimated memory exceeds `bytes`, before it is loaded; no limit by default.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_options_set_memory(struct ExsaOptions *options, uint64_t bytes);

// Sets the element types of cached keys and values by name: "f32", "f16" (the default), "bf16", "q8_0",
// "q4_0". A type that the backend lacks fails the load, with the list of its types.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
// with NUL.
ExsaStatus exsa_options_set_kv_types(struct ExsaOptions *options, const char *keys, const char *values);

// Sets the goal of the scheduler by name: "latency", "throughput" or "balanced" (the default).
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
// with NUL.
ExsaStatus exsa_options_set_mode(struct ExsaOptions *options, const char *mode);

// Sets how token vectors become the vector of a text: "mean", "first" or "last"; by default as the model
// says.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
// with NUL.
ExsaStatus exsa_options_set_pooling(struct ExsaOptions *options, const char *pooling);

// Sets the backend by name: "candle" (the default), or "llamacpp" in a library that was built with it.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
// with NUL.
ExsaStatus exsa_options_set_backend(struct ExsaOptions *options, const char *backend);

// Sets the device by the backend's name for it, such as "cpu"; by default the first of the backend.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
// with NUL.
ExsaStatus exsa_options_set_device(struct ExsaOptions *options, const char *device);

// Loads a smaller model with the same vocabulary beside the model, which drafts for it.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
// with NUL.
ExsaStatus exsa_options_set_draft_model(struct ExsaOptions *options, const char *path);

// Reports the progress of loading to `progress`; null for none, the default.
//
// # Safety
//
// `options` is null or a handle that was not freed and that no other thread uses. `progress` is null or may
// be called, with `user_data`, by any thread until the loads with these options have ended. It must not
// unwind (C++ exceptions, longjmp).
ExsaStatus exsa_options_set_progress(struct ExsaOptions *options, ExsaProgress progress, void *user_data);

// Makes a request: a conversation without messages and with default settings. Null if memory is short. Free
// it with exsa_request_free. Any thread.
struct ExsaRequest *exsa_request_new(void);

// Makes a request from JSON in the form of OpenAI's API: "messages" or "prompt", and any further field that
// the documentation of the crate exsa-core lists, such as "tools", "response_format", "logprobs" and "n".
// Nothing is filtered: do not pass on JSON of strangers. Any thread.
//
// # Safety
//
// `json` is null or ends with NUL; `request` is null or has room for a pointer.
ExsaStatus exsa_request_from_json(const char *json, struct ExsaRequest **request);

// Frees a request; null is allowed. Answers to it go on.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
void exsa_request_free(struct ExsaRequest *request);

// Adds a message to the conversation: `role` is "system", "user", "assistant", "tool" or another that the
// model's chat template knows. A prompt that was set before is replaced.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
// or end with NUL.
ExsaStatus exsa_request_add_message(struct ExsaRequest *request, const char *role, const char *content);

// Sets a text to continue, without a chat template, in place of the conversation.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
// or end with NUL.
ExsaStatus exsa_request_set_prompt(struct ExsaRequest *request, const char *prompt);

// Sets token ids to continue, taken as they are, in place of the conversation.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses; `tokens` has
// `len` elements, or is null with a length of 0.
ExsaStatus exsa_request_set_prompt_tokens(struct ExsaRequest *request, const uint32_t *tokens, size_t len);

// Sets the maximum tokens to generate; 0 goes on until the model ends or the context is full, the default.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_request_set_max_tokens(struct ExsaRequest *request, size_t tokens);

// Sets the seed: with it, the same request gives the same answer. Each answer states the seed that was used.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_request_set_seed(struct ExsaRequest *request, uint64_t seed);

// Sets the temperature; 0 takes the most probable token.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_request_set_temperature(struct ExsaRequest *request, float temperature);

// Keeps the `k` most probable tokens; 0 keeps all.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_request_set_top_k(struct ExsaRequest *request, uint32_t k);

// Keeps the most probable tokens whose probabilities sum to `p`; 1 keeps all.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_request_set_top_p(struct ExsaRequest *request, float p);

// Keeps tokens with at least `p` times the probability of the most probable one; 0 keeps all.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_request_set_min_p(struct ExsaRequest *request, float p);

// Divides the logits of tokens that occurred by `penalty`; 1 is none.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_request_set_repetition_penalty(struct ExsaRequest *request, float penalty);

// Adds a text that ends the answer and is no part of it.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
// or end with NUL.
ExsaStatus exsa_request_add_stop(struct ExsaRequest *request, const char *stop);

// Restricts the answer to JSON of a schema, given as JSON. A schema that cannot be enforced is refused when
// the request is submitted.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
// or end with NUL.
ExsaStatus exsa_request_set_json_schema(struct ExsaRequest *request, const char *schema);

// Adds an adapter that the engine has loaded (exsa_engine_load_adapter); a scale of 1 is its trained
// strength.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
// or end with NUL.
ExsaStatus exsa_request_add_adapter(struct ExsaRequest *request, const char *name, float scale);

// Ends the request with EXSA_FINISH_TIMEOUT when `milliseconds` have passed since it was submitted; 0 is no
// limit, the default.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses.
ExsaStatus exsa_request_set_timeout(struct ExsaRequest *request, uint64_t milliseconds);

// Sets the user; users share the engine evenly. Requests without one count as those of one user.
//
// # Safety
//
// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
// or end with NUL.
ExsaStatus exsa_request_set_user(struct ExsaRequest *request, const char *user);

// Version of the library as text, such as "0.1.0". It is valid for ever. Any thread.
const char *exsa_version(void);

// Version of the interface. A program that was compiled against a header with another EXSA_ABI_VERSION must
// not use the library. Any thread.
uint32_t exsa_abi_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* EXSA_H */
