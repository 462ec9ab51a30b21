//! The clauses of the contract, one constant each.

use crate::failure::Clause;

macro_rules! clauses {
    ($($name:ident = $place:literal, $text:literal;)*) => {
        $(pub(crate) const $name: Clause = Clause { place: $place, text: $text };)*
    };
}

clauses! {
    INSPECT = "InferenceBackend::inspect", "reads the metadata of a model without loading its weights";
    ESTIMATE = "InferenceBackend::estimate", "memory of the model and one session with these options; the errors are those of `load` and `session` for the options";
    DAMAGED = "InferenceBackend", "for a damaged or unsupported file, a LoadError says what is wrong and where; there is never a panic";
    PARALLEL_LOAD = "InferenceBackend", "`load` may be called from several threads at once";
    DEVICES = "InferenceBackend::devices", "the devices that this backend can run on, the preferred device first";
    DEVICE_OPTION = "LoadOptions::device", "name of the device, from `devices`; `None` takes the first device";
    PROGRESS = "InferenceBackend::load", "`progress` receives the bytes loaded so far and can cancel loading";
    CANCEL = "LoadProgress::new", "if the callback returns `false`, loading ends with LoadError::Cancelled";
    SOURCE = "ModelSource", "a GGUF file, a GGUF file embedded in the program, a GGUF file in memory";
    MODEL = "Model", "weights and tokenizer, shared by its sessions";
    OWN_KV = "Model::session", "creates a session with its own KV cache";
    OPTIONS = "SessionOptions", "limits of the session; invalid values are refused";
    CAPABILITIES = "Session::capabilities", "abilities and limits of this session; constant over its life";
    FLAGS = "Capabilities", "`fork`, `truncate` and `save` tell whether the operation is supported; if not, it is refused with KvError::Unsupported";
    EMPTY_AT_START = "Session", "every SeqId below `sequences_max` exists from the start and is empty";
    APPEND = "Session", "`forward` appends each span's tokens to its sequence";
    ROWS = "Session::forward", "runs a forward pass over the batch and lends the requested rows of logits, in batch order";
    ROW_ALONE = "Session", "up to rounding, a row of logits depends only on the tokens of its sequence: not on the division into spans, nor on the rest of the batch";
    SAME_AGAIN = "Session", "a row of logits depends only on the tokens of its sequence";
    ADAPTERS = "Span::adapters", "adapters applied to the span, summed; empty for the model alone";
    ADAPTERS_REFUSED = "Model::unload_adapter", "later spans with it are refused; so are more adapters than `span_adapters_max`";
    POSITION = "Session", "spans start exactly where their sequence ends; others are refused with StepError::Position before any state changes";
    VOCABULARY = "Session", "ids outside the vocabulary are refused before any state changes";
    BATCH_LIMIT = "Session", "batches over the limit are refused before any state changes";
    CONTEXT = "Capabilities::context_tokens_max", "maximum tokens in one sequence";
    SEQUENCE_IDS = "SeqId", "always below `sequences_max`; a sequence has at most one span in a batch";
    AFTER_ERROR = "Session", "after an error, core truncates every sequence of the batch to its `position`, and the session then continues to work";
    BLOCKS = "Session", "a sequence of n tokens holds ceil(n / block_tokens) blocks, less those that it shares; while the distinct blocks fit, `forward` does not fail for lack of space";
    KV_FULL = "StepError::KvFull", "the KV cache is full: more blocks are needed than are free";
    RELEASE = "Session::release", "empties the sequence; an empty sequence or an id out of range is not an error";
    FORK = "Session::fork", "makes the empty sequence `to` hold the first `len` tokens of `from`";
    FORK_REFUSED = "KvError", "Sequence: the id is not below `sequences_max`, or the target of a fork is not empty; Length: it exceeds the tokens that the sequence holds";
    TRUNCATE = "Session::truncate", "removes all but the first `len` tokens of `seq`";
    TRUNCATE_REFUSED = "KvError", "Sequence: the id is not below `sequences_max`; Length: it exceeds the tokens that the sequence holds";
    SAVE = "Session::save", "writes the KV of `seq` in a form that `restore` reads";
    RESTORE = "Session::restore", "fills the empty sequence `seq` from the output of `save` for the same model; returns its length in tokens";
    RESTORE_REFUSED = "KvError", "Format: saved KV does not belong to this model or is damaged; Full: the KV cache has no space; Sequence: the target is not empty, or the id does not exist";
    EMBED = "Session::embed", "one vector per span, in batch order; the limits and errors of `forward` apply; afterwards the sequences are empty again";
    INTERRUPT = "Interrupt", "a running `forward` returns early with StepError::Interrupted";
    THREADS = "ThreadOptions", "compute threads; their number changes results at most by rounding";
    MEMORY = "Session::release", "the memory of a sequence can be used again";
    ENCODE = "Tokenizer", "`encode` never panics, whatever the text, and adds neither BOS nor EOS; its time grows as n log n at worst";
    PIECES = "Tokenizer", "concatenated pieces of `encode(text)` are the text's UTF-8 bytes, apart from normalization, leading space and bytes without a token";
    PIECE_OUTSIDE = "Tokenizer", "`piece` of an id outside the vocabulary is empty";
    CONTROL = "EncodeOptions::parse_special", "control tokens written out in the text are encoded as control tokens only if it is set";
    PROTECTED_OFFSETS = "EncodeOptions::protected_offsets", "byte offsets that no recognized control token may contain";
    SPECIAL_IDS = "SpecialIds", "token ids with a role, each below `n_vocab`; `end_of_generation` is sorted and contains EOS";
    TEXT = "Model", "weights and tokenizer: greedy decoding of a trained model gives its reference text";
    MODELS = "Generator::models", "the available models, the default model first";
    REFUSALS = "Generator::submit", "refuses invalid requests, and requests that exceed the capacity, at once with a typed error";
    ENDS = "Generator", "every accepted request ends with exactly one Event::Finished";
    CANCELS = "TokenStream::cancel", "cancels the request; the events received so far, and Event::Finished, can still be read";
    TIMES = "Request::timeout", "time limit of the request, measured from submission";
    SEEDS = "Finished::seed", "the same request for one answer with this seed reproduces the answer";
    LIMITS = "Request::max_tokens", "maximum tokens to generate";
    USAGE = "Usage", "token counts and times of a request";
    STOPS = "Request::stop", "texts that end the answer and are not included in it";
    SEVERAL = "Request::n", "answer i equals that of the same request for one answer with the seed plus i; every answer ends once";
    RESUME = "Resume", "the request continues the answer as if generation had not been interrupted; only new tokens and new text are emitted";
    BATCH = "Generator", "an answer does not depend on other requests";
    READERS = "Generator", "a consumer that does not read its stream, or drops it, does not delay other requests";
    FIXTURE = "Fixture", "different contexts change the logits by more than the tolerance; otherwise comparisons are meaningless";
}
