/* Loads a model, streams an answer, and cancels another one.
 *
 *   chat MODEL.gguf [MESSAGE]
 */
#include <stdio.h>

#include "exsa.h"

/* Says which call failed and why. */
static int fail(const char *call) {
    fprintf(stderr, "%s: %s\n", call, exsa_last_error());
    return 1;
}

/* Prints an answer piece by piece; after `pieces_max` pieces it is cancelled. */
static int print_answer(ExsaAnswer *answer, int pieces_max) {
    const char *text = NULL;
    ExsaUsage usage;
    ExsaStatus status;
    int pieces = 0;

    /* A program with a loop of its own would pass a timeout of 0 and come back at EXSA_STATUS_PENDING. */
    while ((status = exsa_answer_next(answer, -1, &text, NULL)) == EXSA_STATUS_OK) {
        fputs(text, stdout);
        fflush(stdout);
        if (++pieces == pieces_max) {
            exsa_answer_cancel(answer);
        }
    }
    if (status != EXSA_STATUS_END) {
        return fail("exsa_answer_next");
    }
    if (exsa_answer_usage(answer, &usage, sizeof usage) != EXSA_STATUS_OK) {
        return fail("exsa_answer_usage");
    }
    printf("\n[%s: %llu tokens]\n", exsa_answer_finish(answer) == EXSA_FINISH_CANCELLED ? "cancelled" : "done",
           (unsigned long long)usage.completion_tokens);
    return 0;
}

/* Submits one message and prints the answer. */
static int ask(const ExsaEngine *engine, const char *message, size_t tokens, int pieces_max) {
    ExsaRequest *request = exsa_request_new();
    ExsaAnswer *answer = NULL;
    int failed;

    /* A null request, where memory is short, fails the calls that follow. */
    exsa_request_add_message(request, "user", message);
    exsa_request_set_max_tokens(request, tokens);
    exsa_request_set_temperature(request, 0.7f);
    exsa_request_set_seed(request, 1);
    failed = exsa_engine_submit(engine, request, &answer) == EXSA_STATUS_OK ? print_answer(answer, pieces_max)
                                                                           : fail("exsa_engine_submit");
    exsa_answer_free(answer);
    exsa_request_free(request);
    return failed;
}

int main(int argc, char **argv) {
    ExsaOptions *options;
    ExsaEngine *engine = NULL;
    ExsaStatus loaded;
    int failed;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s MODEL.gguf [MESSAGE]\n", argv[0]);
        return 2;
    }
    if (exsa_abi_version() != EXSA_ABI_VERSION) {
        fprintf(stderr, "libexsa %s has another interface than its header\n", exsa_version());
        return 1;
    }
    options = exsa_options_new();
    exsa_options_set_context_tokens(options, 512);
    loaded = exsa_engine_load(argv[1], options, &engine);
    exsa_options_free(options);
    if (loaded != EXSA_STATUS_OK) {
        return fail("exsa_engine_load");
    }
    failed = ask(engine, argc > 2 ? argv[2] : "Tell me a story about a frog.", 48, 0) ||
             ask(engine, "Tell me a long story about a cat.", 0, 3);
    exsa_engine_free(engine);
    return failed;
}
