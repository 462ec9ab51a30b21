/* Tests of the C API on the built-in model: api MODEL.gguf ADAPTER.gguf
 *
 * Texts are compared with each other, not with fixed ones: the model is real, its numbers depend on the processor.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exsa.h"

#define CHECK(condition)                                                                                   \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            fprintf(stderr, "%s:%d: %s is false; last error: %s\n", __FILE__, __LINE__, #condition,        \
                    exsa_last_error());                                                                    \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)

#define OK(call) CHECK((call) == EXSA_STATUS_OK)
#define FAILS(call, status) CHECK((call) == (status) && exsa_last_error_status() == (status))
#define ERROR_HAS(part) CHECK(strstr(exsa_last_error(), part) != NULL)

static const char *model_path;
static const char *adapter_path;

static ExsaEngine *load(void) {
    ExsaOptions *options = exsa_options_new();
    ExsaEngine *engine = NULL;
    OK(exsa_options_set_threads(options, 1));
    OK(exsa_options_set_context_tokens(options, 256));
    OK(exsa_options_set_sequences(options, 4));
    OK(exsa_options_set_batch_tokens(options, 64));
    OK(exsa_options_set_pooling(options, "mean"));
    OK(exsa_options_set_backend(options, "candle"));
    OK(exsa_engine_load(model_path, options, &engine));
    exsa_options_free(options);
    CHECK(engine != NULL);
    return engine;
}

static ExsaRequest *story(const char *message, size_t tokens) {
    ExsaRequest *request = exsa_request_new();
    OK(exsa_request_add_message(request, "user", message));
    OK(exsa_request_set_max_tokens(request, tokens));
    OK(exsa_request_set_seed(request, 7));
    return request;
}

static ExsaAnswer *submit(const ExsaEngine *engine, const ExsaRequest *request) {
    ExsaAnswer *answer = NULL;
    OK(exsa_engine_submit(engine, request, &answer));
    CHECK(answer != NULL);
    return answer;
}

/* The rest of an answer; the caller frees it. */
static char *rest(ExsaAnswer *answer) {
    char *whole = calloc(1, 1);
    size_t total = 0, len = 0;
    const char *text = NULL;
    ExsaStatus status;
    while ((status = exsa_answer_next(answer, -1, &text, &len)) == EXSA_STATUS_OK) {
        CHECK(len > 0 && strlen(text) == len);
        whole = realloc(whole, total + len + 1);
        memcpy(whole + total, text, len + 1);
        total += len;
    }
    CHECK(status == EXSA_STATUS_END);
    CHECK(text[0] == '\0' && len == 0);
    return whole;
}

static char *complete(const ExsaEngine *engine, ExsaRequest *request) {
    ExsaAnswer *answer = submit(engine, request);
    char *text = rest(answer);
    exsa_answer_free(answer);
    exsa_request_free(request);
    return text;
}

static void streams_and_usage(const ExsaEngine *engine) {
    ExsaRequest *request = story("Tell me a story about a frog.", 24);
    ExsaAnswer *first = submit(engine, request), *second = submit(engine, request);
    ExsaUsage usage, again[2];
    char *one, *two;
    size_t prompt = 0;

    CHECK(exsa_answer_usage(first, &usage, sizeof usage) == EXSA_STATUS_PENDING);
    CHECK(exsa_answer_finish(first) == EXSA_FINISH_NONE);
    one = rest(first);
    two = rest(second);
    CHECK(strlen(one) > 20 && strcmp(one, two) == 0);
    CHECK(exsa_answer_finish(first) == EXSA_FINISH_LENGTH);
    OK(exsa_answer_usage(first, &usage, sizeof usage));
    OK(exsa_engine_count_tokens(engine, request, &prompt));
    CHECK(usage.completion_tokens == 24 && usage.prompt_tokens == prompt && usage.seed == 7);
    CHECK(usage.total_seconds > 0 && usage.first_token_seconds <= usage.total_seconds);
    /* A larger structure of a later header is zeroed behind what this library knows. */
    memset(again, 0xff, sizeof again);
    OK(exsa_answer_usage(first, again, sizeof again));
    CHECK(again[0].completion_tokens == 24 && again[1].prompt_tokens == 0 && again[1].total_seconds == 0);
    FAILS(exsa_answer_usage(first, &usage, 8), EXSA_STATUS_INVALID_ARGUMENT);
    free(one);
    free(two);
    exsa_answer_free(first);
    exsa_answer_free(second);
    exsa_request_free(request);
}

static void polls_without_waiting(const ExsaEngine *engine) {
    ExsaRequest *request = story("Tell me a story about a bird.", 12);
    ExsaAnswer *answer = submit(engine, request);
    const char *text = NULL;
    size_t pieces = 0, len = 0;
    ExsaStatus status;
    while ((status = exsa_answer_next(answer, 0, &text, &len)) != EXSA_STATUS_END) {
        CHECK(status == EXSA_STATUS_OK || status == EXSA_STATUS_PENDING);
        CHECK((status == EXSA_STATUS_OK) == (len > 0));
        pieces += status == EXSA_STATUS_OK;
    }
    CHECK(pieces > 1);
    CHECK(exsa_answer_next(answer, -1, &text, &len) == EXSA_STATUS_END);
    exsa_answer_free(answer);
    exsa_request_free(request);
}

static void cancels(const ExsaEngine *engine) {
    ExsaRequest *request = story("Tell me a long story.", 0);
    ExsaAnswer *answer;
    char *text;
    OK(exsa_request_set_max_tokens(request, 200));
    answer = submit(engine, request);
    OK(exsa_answer_cancel(answer));
    text = rest(answer);
    CHECK(exsa_answer_finish(answer) == EXSA_FINISH_CANCELLED);
    free(text);
    OK(exsa_answer_cancel(answer));
    exsa_answer_free(answer);
    /* Freed unread: the request ends with its handle. */
    exsa_answer_free(submit(engine, request));
    exsa_request_free(request);
}

static void *cancel_in_thread(void *answer) {
    CHECK(exsa_answer_cancel(answer) == EXSA_STATUS_OK);
    /* The last error is the thread's own. */
    CHECK(exsa_last_error_status() == EXSA_STATUS_OK && exsa_last_error()[0] == '\0');
    return NULL;
}

static void cancels_from_another_thread(const ExsaEngine *engine) {
    ExsaRequest *request = exsa_request_new();
    ExsaAnswer *answer;
    pthread_t thread;
    char *text;
    OK(exsa_request_set_prompt(request, "Once upon a time"));
    answer = submit(engine, request);
    FAILS(exsa_answer_cancel(NULL), EXSA_STATUS_NULL_POINTER);
    CHECK(pthread_create(&thread, NULL, cancel_in_thread, answer) == 0);
    text = rest(answer);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(exsa_answer_finish(answer) != EXSA_FINISH_NONE);
    free(text);
    exsa_answer_free(answer);
    exsa_request_free(request);
}

static void *complete_in_thread(void *engine) {
    return complete(engine, story("Tell me a story about a dog.", 16));
}

static void threads_share_an_engine(ExsaEngine *engine) {
    pthread_t threads[4];
    char *expected = complete(engine, story("Tell me a story about a dog.", 16));
    size_t i;
    for (i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, complete_in_thread, engine) == 0);
    }
    for (i = 0; i < 4; i++) {
        void *text = NULL;
        CHECK(pthread_join(threads[i], &text) == 0);
        CHECK(strcmp(text, expected) == 0);
        free(text);
    }
    free(expected);
}

static void sampling_and_limits(const ExsaEngine *engine) {
    ExsaRequest *request = story("Tell me a story about a frog.", 24);
    char *whole, *cut, *expected, stop[4] = {0};
    OK(exsa_request_set_temperature(request, 0));
    whole = complete(engine, request);
    CHECK(strlen(whole) > 12);
    /* A stop string taken from the answer ends it there. */
    memcpy(stop, whole + 8, 3);
    request = story("Tell me a story about a frog.", 24);
    OK(exsa_request_set_temperature(request, 0));
    OK(exsa_request_add_stop(request, stop));
    cut = complete(engine, request);
    expected = strstr(whole, stop);
    CHECK(strlen(cut) == (size_t)(expected - whole) && strncmp(whole, cut, strlen(cut)) == 0);
    free(whole);
    free(cut);

    request = story("A frog.", 4);
    OK(exsa_request_set_top_k(request, 5));
    OK(exsa_request_set_top_p(request, 0.9f));
    OK(exsa_request_set_min_p(request, 0.1f));
    OK(exsa_request_set_repetition_penalty(request, 1.1f));
    OK(exsa_request_set_user(request, "anna"));
    OK(exsa_request_set_timeout(request, 600000));
    free(complete(engine, request));

    /* Values are checked when the request is submitted. */
    request = story("A frog.", 4);
    OK(exsa_request_set_top_p(request, -1));
    {
        ExsaAnswer *answer = (ExsaAnswer *)request;
        FAILS(exsa_engine_submit(engine, request, &answer), EXSA_STATUS_REFUSED);
        CHECK(answer == NULL);
        ERROR_HAS("top_p");
    }
    exsa_request_free(request);
}

static void schemas(const ExsaEngine *engine) {
    ExsaRequest *request = story("Is a frog green?", 40);
    ExsaAnswer *answer = NULL;
    char *text;
    OK(exsa_request_set_json_schema(request, "{\"type\": \"boolean\"}"));
    text = complete(engine, request);
    CHECK(strcmp(text, "true") == 0 || strcmp(text, "false") == 0);
    free(text);

    request = story("Is a frog green?", 40);
    OK(exsa_request_set_json_schema(request, "{\"type\": "));
    FAILS(exsa_engine_submit(engine, request, &answer), EXSA_STATUS_REFUSED);
    exsa_request_free(request);
}

static void requests_in_json(const ExsaEngine *engine) {
    const char *json = "{\"messages\": [{\"role\": \"user\", \"content\": \"Tell me a story about a frog.\"}], "
                       "\"max_tokens\": 12, \"seed\": 7}";
    ExsaRequest *request = NULL;
    ExsaAnswer *answer;
    const char *event = NULL;
    char *one = complete(engine, story("Tell me a story about a frog.", 12)), *two;
    ExsaStatus status;
    int tokens = 0, finished = 0;

    OK(exsa_request_from_json(json, &request));
    answer = submit(engine, request);
    two = rest(answer);
    CHECK(strcmp(one, two) == 0);
    exsa_answer_free(answer);

    answer = submit(engine, request);
    while ((status = exsa_answer_next_event(answer, -1, &event, NULL)) == EXSA_STATUS_OK) {
        tokens += strstr(event, "\"type\":\"token\"") != NULL;
        finished += strstr(event, "\"type\":\"finished\"") != NULL;
    }
    CHECK(status == EXSA_STATUS_END && tokens >= 12 && finished == 1);
    exsa_answer_free(answer);
    exsa_request_free(request);
    free(one);
    free(two);

    FAILS(exsa_request_from_json("{\"max_tokens\": \"many\"}", &request), EXSA_STATUS_INVALID_ARGUMENT);
    CHECK(request == NULL);
    ERROR_HAS("json is no request");
}

static void tokens(const ExsaEngine *engine) {
    const char *text = "The cat sat on the mat.";
    uint32_t ids[64];
    char back[64];
    size_t len = 0, needed = 0;
    ExsaRequest *request = exsa_request_new();

    OK(exsa_engine_tokenize(engine, text, ids, 64, &len));
    CHECK(len > 3 && len < 64);
    FAILS(exsa_engine_tokenize(engine, text, ids, len - 1, &needed), EXSA_STATUS_BUFFER_TOO_SMALL);
    CHECK(needed == len);
    FAILS(exsa_engine_tokenize(engine, text, NULL, 64, &needed), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_engine_tokenize(engine, text, NULL, 0, &needed), EXSA_STATUS_BUFFER_TOO_SMALL);
    OK(exsa_engine_tokenize(engine, "", NULL, 0, &needed));
    CHECK(needed == 0);
    OK(exsa_engine_detokenize(engine, ids, len, back, sizeof back, &needed));
    CHECK(strcmp(back, text) == 0 && needed == strlen(text) + 1);
    FAILS(exsa_engine_detokenize(engine, ids, len, back, needed - 1, &needed), EXSA_STATUS_BUFFER_TOO_SMALL);
    FAILS(exsa_engine_detokenize(engine, ids, SIZE_MAX / 2, back, 64, &needed), EXSA_STATUS_INVALID_ARGUMENT);

    OK(exsa_request_set_prompt_tokens(request, ids, len));
    OK(exsa_engine_count_tokens(engine, request, &needed));
    CHECK(needed == len);
    OK(exsa_request_set_max_tokens(request, 4));
    free(complete(engine, request));
    CHECK(exsa_engine_vocabulary_size(engine) > 100);
    CHECK(exsa_engine_context_tokens(engine) == 256);
    CHECK(strlen(exsa_engine_model_name(engine)) > 0);
}

static void vectors(const ExsaEngine *engine) {
    const char *texts[] = {"a frog", "a toad", "a frog"};
    size_t width = exsa_engine_embedding_width(engine), i;
    float *values = calloc(3 * width, sizeof(float));
    double square = 0;
    CHECK(width > 0);
    OK(exsa_engine_embed(engine, texts, 3, values, 3 * width));
    for (i = 0; i < width; i++) {
        square += (double)values[i] * values[i];
    }
    CHECK(square > 0.99 && square < 1.01);
    CHECK(memcmp(values, values + 2 * width, width * sizeof(float)) == 0);
    CHECK(memcmp(values, values + width, width * sizeof(float)) != 0);
    FAILS(exsa_engine_embed(engine, texts, 3, values, 3 * width - 1), EXSA_STATUS_BUFFER_TOO_SMALL);
    texts[1] = NULL;
    FAILS(exsa_engine_embed(engine, texts, 3, values, 3 * width), EXSA_STATUS_NULL_POINTER);
    ERROR_HAS("text 1 is null");
    free(values);
}

static void adapters(const ExsaEngine *engine) {
    ExsaRequest *request = story("Tell me a story about a queen.", 24);
    ExsaAnswer *answer = NULL;
    char *plain = complete(engine, story("Tell me a story about a queen.", 24)), *adapted;
    OK(exsa_engine_load_adapter(engine, "alice", adapter_path));
    FAILS(exsa_engine_load_adapter(engine, "alice", adapter_path), EXSA_STATUS_LOAD);
    OK(exsa_request_add_adapter(request, "alice", 1));
    adapted = complete(engine, request);
    CHECK(strcmp(plain, adapted) != 0);
    free(plain);
    free(adapted);
    OK(exsa_engine_unload_adapter(engine, "alice"));
    request = story("Tell me a story about a queen.", 24);
    OK(exsa_request_add_adapter(request, "alice", 1));
    FAILS(exsa_engine_submit(engine, request, &answer), EXSA_STATUS_REFUSED);
    ERROR_HAS("alice");
    exsa_request_free(request);
}

static bool count_progress(uint64_t done, uint64_t total, void *calls) {
    CHECK(done <= total);
    ++*(int *)calls;
    return true;
}

static bool stop_loading(uint64_t done, uint64_t total, void *calls) {
    (void)done, (void)total, (void)calls;
    return false;
}

static void loading(void) {
    ExsaOptions *options = exsa_options_new();
    ExsaEngine *engine = (ExsaEngine *)options;
    uint8_t junk[64] = {0};
    FILE *file = fopen(model_path, "rb");
    uint8_t *bytes = malloc(8 << 20);
    size_t len;
    int calls = 0;

    FAILS(exsa_engine_load("no-such-model.gguf", NULL, &engine), EXSA_STATUS_LOAD);
    CHECK(engine == NULL);
    ERROR_HAS("no-such-model.gguf");
    FAILS(exsa_engine_load_bytes(junk, sizeof junk, NULL, &engine), EXSA_STATUS_LOAD);
    FAILS(exsa_engine_load_bytes(NULL, 4, NULL, &engine), EXSA_STATUS_NULL_POINTER);
    OK(exsa_options_set_memory(options, 1000));
    FAILS(exsa_engine_load(model_path, options, &engine), EXSA_STATUS_LOAD);
    OK(exsa_options_set_memory(options, UINT64_C(1) << 40));

    FAILS(exsa_options_set_kv_types(options, "f16", "q3"), EXSA_STATUS_INVALID_ARGUMENT);
    ERROR_HAS("available: f32, f16");
    FAILS(exsa_options_set_mode(options, "fast"), EXSA_STATUS_INVALID_ARGUMENT);
    OK(exsa_options_set_kv_types(options, "q8_0", "q8_0"));
    OK(exsa_options_set_mode(options, "latency"));
    OK(exsa_options_set_queue(options, 8));
    OK(exsa_options_set_kv_bytes(options, 64 << 20));
    OK(exsa_options_set_context_tokens(options, 128));

    OK(exsa_options_set_progress(options, stop_loading, NULL));
    FAILS(exsa_engine_load(model_path, options, &engine), EXSA_STATUS_LOAD);
    ERROR_HAS("cancelled");
    OK(exsa_options_set_progress(options, count_progress, &calls));
    CHECK(file != NULL && bytes != NULL);
    len = fread(bytes, 1, 8 << 20, file);
    CHECK(len > 1000 && feof(file));
    fclose(file);
    OK(exsa_engine_load_bytes(bytes, len, options, &engine));
    /* The bytes were copied. */
    memset(bytes, 0, len);
    free(bytes);
    exsa_options_free(options);
    CHECK(calls > 0);
    CHECK(exsa_engine_context_tokens(engine) == 128);
    free(complete(engine, story("Tell me a story about a frog.", 8)));
    exsa_engine_free(engine);
}

static void a_full_queue_is_busy(void) {
    ExsaOptions *options = exsa_options_new();
    ExsaEngine *engine = NULL;
    ExsaRequest *request = NULL;
    ExsaAnswer *answers[256] = {NULL};
    ExsaStatus status = EXSA_STATUS_OK;
    size_t i;
    OK(exsa_options_set_sequences(options, 1));
    OK(exsa_options_set_queue(options, 1));
    OK(exsa_engine_load(model_path, options, &engine));
    OK(exsa_request_from_json("{\"prompt\": \"Once upon a time\", \"ignore_eos\": true}", &request));
    /* One is computed until its context is full, one waits. */
    for (i = 0; i < 256 && status == EXSA_STATUS_OK; i++) {
        status = exsa_engine_submit(engine, request, &answers[i]);
    }
    CHECK(status == EXSA_STATUS_BUSY);
    ERROR_HAS("queue");
    for (i = 0; i < 256; i++) {
        exsa_answer_free(answers[i]);
    }
    exsa_options_free(options);
    exsa_request_free(request);
    exsa_engine_free(engine);
}

static void handles_are_freed_in_any_order(void) {
    ExsaEngine *engine = load();
    ExsaRequest *request = story("Tell me a story about a frog.", 12);
    ExsaAnswer *answer = submit(engine, request), *unread = submit(engine, request);
    ExsaUsage usage;
    char *text;
    exsa_engine_free(engine);
    exsa_request_free(request);
    text = rest(answer);
    CHECK(strlen(text) > 0 && exsa_answer_finish(answer) == EXSA_FINISH_LENGTH);
    free(text);
    exsa_answer_free(unread);
    OK(exsa_answer_usage(answer, &usage, sizeof usage));
    exsa_answer_free(answer);
}

static void bad_arguments(const ExsaEngine *engine) {
    ExsaRequest *request = exsa_request_new();
    ExsaAnswer *answer = NULL;
    ExsaEngine *other = NULL;
    const char *text = NULL;
    size_t len = 0;
    char latin[] = {'c', 'a', 'f', (char)0xe9, 0};

    FAILS(exsa_engine_load(NULL, NULL, &other), EXSA_STATUS_NULL_POINTER);
    ERROR_HAS("path is null");
    FAILS(exsa_engine_load(model_path, NULL, NULL), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_engine_load(latin, NULL, &other), EXSA_STATUS_INVALID_UTF8);
    ERROR_HAS("path is not UTF-8 after 3 bytes");
    FAILS(exsa_engine_submit(NULL, request, &answer), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_engine_submit(engine, NULL, &answer), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_engine_submit(engine, request, NULL), EXSA_STATUS_NULL_POINTER);
    OK(exsa_request_set_prompt_tokens(request, NULL, 0));
    FAILS(exsa_engine_submit(engine, request, &answer), EXSA_STATUS_REFUSED);
    FAILS(exsa_request_add_message(request, "user", latin), EXSA_STATUS_INVALID_UTF8);
    FAILS(exsa_request_add_message(request, NULL, "text"), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_request_add_message(NULL, "user", "text"), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_request_set_prompt(request, NULL), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_request_set_prompt_tokens(request, NULL, 3), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_request_from_json("{}", NULL), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_options_set_threads(NULL, 1), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_answer_next(NULL, 0, &text, &len), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_answer_usage(NULL, NULL, 0), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_engine_tokenize(engine, "text", NULL, 0, NULL), EXSA_STATUS_NULL_POINTER);
    CHECK(exsa_answer_finish(NULL) == EXSA_FINISH_NONE);
    CHECK(exsa_engine_model_name(NULL) == NULL && exsa_engine_context_tokens(NULL) == 0);
    OK(exsa_request_add_message(request, "user", "A frog."));
    OK(exsa_request_set_max_tokens(request, 2));
    answer = submit(engine, request);
    FAILS(exsa_answer_next(answer, -1, NULL, &len), EXSA_STATUS_NULL_POINTER);
    FAILS(exsa_answer_usage(answer, NULL, sizeof(ExsaUsage)), EXSA_STATUS_NULL_POINTER);
    exsa_answer_free(answer);
    exsa_request_free(request);
    exsa_options_free(NULL);
    exsa_engine_free(NULL);
    exsa_request_free(NULL);
    exsa_answer_free(NULL);
}

int main(int argc, char **argv) {
    ExsaEngine *engine;
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL.gguf ADAPTER.gguf\n", argv[0]);
        return 2;
    }
    model_path = argv[1];
    adapter_path = argv[2];
    CHECK(exsa_abi_version() == EXSA_ABI_VERSION && strlen(exsa_version()) >= 5);
    CHECK(exsa_last_error_status() == EXSA_STATUS_OK && exsa_last_error()[0] == '\0');
    engine = load();
    streams_and_usage(engine);
    polls_without_waiting(engine);
    cancels(engine);
    cancels_from_another_thread(engine);
    threads_share_an_engine(engine);
    sampling_and_limits(engine);
    schemas(engine);
    requests_in_json(engine);
    tokens(engine);
    vectors(engine);
    adapters(engine);
    bad_arguments(engine);
    exsa_engine_free(engine);
    loading();
    a_full_queue_is_busy();
    handles_are_freed_in_any_order();
    puts("ok: the C API");
    return 0;
}
