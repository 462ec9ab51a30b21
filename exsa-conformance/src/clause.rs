//! The clauses of the contract, one constant each.

use crate::failure::Clause;

macro_rules! clauses {
    ($($name:ident = $place:literal, $text:literal;)*) => {
        $(pub(crate) const $name: Clause = Clause { place: $place, text: $text };)*
    };
}

clauses! {
    INSPECT = "InferenceBackend::inspect", "describes a model without loading its weights";
    ESTIMATE = "InferenceBackend::estimate", "bytes that the model and one session of it would take, by these options; the errors that `load` and `session` would give for them";
    DAMAGED = "InferenceBackend", "a damaged or unsupported file is a LoadError that says what is wrong and where, never a panic";
    PARALLEL_LOAD = "InferenceBackend", "`load` may be called from several threads at once";
    DEVICES = "InferenceBackend::devices", "the devices that this backend can run on, the preferred one first";
    DEVICE_OPTION = "LoadOptions::device", "name of the device, as `devices` gives it; `None` takes the first";
    PROGRESS = "InferenceBackend::load", "`progress` hears how far it is";
    CANCEL = "LoadProgress::new", "`false` ends loading with LoadError::Cancelled";
    SOURCE = "ModelSource", "a GGUF file, a GGUF inside the program, a GGUF in memory";
    MODEL = "Model", "weights and tokenizer, shared by its sessions";
    OWN_KV = "Model::session", "makes a session with a KV cache of its own";
    OPTIONS = "SessionOptions", "limits of the session, and what they are refused for";
    CAPABILITIES = "Session::capabilities", "what this session can do, and its limits; constant over its life";
    FLAGS = "Capabilities", "`fork`, `truncate`, `save` say whether the operation works; where not, it refuses with KvError::Unsupported";
    EMPTY_AT_START = "Session", "every SeqId below `sequences_max` exists from the start and is empty";
    APPEND = "Session", "`forward` appends each span's tokens to its sequence";
    ROWS = "Session::forward", "runs the batch and lends the rows of logits it asked for, in its order";
    ROW_ALONE = "Session", "the result of a row depends on the tokens of its sequence alone, up to rounding: not on how they were cut into spans, nor on what else is in the batch";
    SAME_AGAIN = "Session", "the result of a row depends on the tokens of its sequence alone";
    ADAPTERS = "Span::adapters", "adapters applied to the span, summed; empty for the model alone";
    ADAPTERS_REFUSED = "Model::unload_adapter", "later spans with it are refused; so are more adapters than `span_adapters_max`";
    POSITION = "Session", "spans start exactly where their sequence ends; others are refused with StepError::Position before anything changes";
    VOCABULARY = "Session", "ids outside the vocabulary are refused before anything changes";
    BATCH_LIMIT = "Session", "batches over the limit are refused before anything changes";
    CONTEXT = "Capabilities::context_tokens_max", "tokens in one sequence";
    SEQUENCE_IDS = "SeqId", "always below `sequences_max`; a sequence has at most one span in a batch";
    AFTER_ERROR = "Session", "after an error, core truncates every sequence of the batch to its `position`, and the session then works on";
    BLOCKS = "Session", "a sequence of n tokens holds ceil(n / block_tokens) blocks, less those that it shares; while the distinct blocks fit, `forward` does not fail for want of room";
    KV_FULL = "StepError::KvFull", "the KV cache has no room: more blocks are needed than are free";
    RELEASE = "Session::release", "empties the sequence; an id that is empty, or out of range, is no error";
    FORK = "Session::fork", "makes the empty sequence `to` hold the first `len` tokens of `from`";
    FORK_REFUSED = "KvError", "Sequence: the id is not below `sequences_max`, or the target of a fork is not empty; Length: beyond what the sequence holds";
    TRUNCATE = "Session::truncate", "forgets all but the first `len` tokens of `seq`";
    TRUNCATE_REFUSED = "KvError", "Sequence: the id is not below `sequences_max`; Length: beyond what the sequence holds";
    SAVE = "Session::save", "writes the KV of `seq` so that `restore` can read it";
    RESTORE = "Session::restore", "fills the empty sequence `seq` from what `save` wrote, for the same model; returns its length in tokens";
    RESTORE_REFUSED = "KvError", "Format: saved KV does not belong to this model or is damaged; Full: no room; Sequence: the target is not empty, or no such id";
    EMBED = "Session::embed", "one vector for each span, in its order; the limits of `forward` hold, and its errors; afterwards the sequences are empty again";
    INTERRUPT = "Interrupt", "asks a running `forward` to return early with StepError::Interrupted";
    THREADS = "ThreadOptions", "threads that compute; how many changes no result beyond rounding";
    MEMORY = "Session::release", "what a sequence held can be used again";
    ENCODE = "Tokenizer", "`encode` never panics, whatever the text, and adds neither BOS nor EOS; its time grows as n log n at worst";
    PIECES = "Tokenizer", "concatenated pieces of `encode(text)` are the text's UTF-8 bytes, up to normalisation, leading space and bytes without a token";
    PIECE_OUTSIDE = "Tokenizer", "`piece` of an id outside the vocabulary is empty";
    CONTROL = "EncodeOptions::parse_special", "control tokens written out in the text become their ids only where it is set";
    PROTECTED_OFFSETS = "EncodeOptions::protected_offsets", "byte offsets across which no control token is recognised";
    SPECIAL_IDS = "SpecialIds", "token ids with a role, each below `n_vocab`; `end_of_generation` is sorted and has EOS in it";
    TEXT = "Model", "weights and tokenizer: greedy decoding of a trained model gives its reference text";
    MODELS = "Generator::models", "the available models, the default model first";
    REFUSALS = "Generator::submit", "refuses invalid or unplaceable requests at once with a typed error";
    ENDS = "Generator", "every accepted request ends with exactly one Event::Finished";
    CANCELS = "TokenStream::cancel", "ends the request; the events already here, and Event::Finished, can still be read";
    TIMES = "Request::timeout", "the request ends when this much time has passed since it was submitted";
    SEEDS = "Finished::seed", "the same request for one answer with this seed gives the same answer";
    LIMITS = "Request::max_tokens", "tokens to generate at most";
    USAGE = "Usage", "tokens and times of a request";
    STOPS = "Request::stop", "texts that end the answer, and are no part of it";
    SEVERAL = "Request::n", "answer i is that of the same request for one answer whose seed is larger by i; every answer ends once";
    RESUME = "Resume", "the request goes on as if nothing had happened between; only new tokens and new text are emitted";
    BATCH = "Generator", "an answer does not depend on other requests";
    READERS = "Generator", "a consumer that does not read, or drops its stream, delays no other request";
    FIXTURE = "Fixture", "the model tells contexts apart by more than the tolerance, or no comparison means anything";
}
