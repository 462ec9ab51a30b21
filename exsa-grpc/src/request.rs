//! Converts requests of the service to requests of the engine.

use crate::host::Served;
use crate::proto::decoding_parameters::StructuredOutput;
use crate::proto::generate_request::Prompt as SentPrompt;
use crate::proto::{
    CandidateTokens, DecodingParameters, GenerateRequest, KvCacheParameters, RandomSampling, ResponseOptions,
    StoppingCriteria, candidate_tokens,
};
use crate::status::{self, invalid};
use exsa_core::tokenizer::{EncodeOptions, encode_prompt};
use exsa_core::{Priority, Prompt, Request, TokenId};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::Status;

/// Default token limit of an answer in the protocol.
const NEW_TOKENS: u32 = 20;

/// Maximum candidates at a position, as in
/// [`SamplingParams::top_logprobs`](exsa_core::SamplingParams::top_logprobs).
const CANDIDATES_MAX: u32 = 20;

/// A request, and the requested form of its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) form: Form,
}

/// The requested parts of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form {
    pub(crate) text: bool,
    pub(crate) token_ids: bool,
    pub(crate) logprobs: bool,
    /// Candidates to list at each position.
    pub(crate) candidates: Option<usize>,
    /// Prompt tokens, if known.
    pub(crate) prompt: Option<Vec<TokenId>>,
    /// Whether the response includes them.
    pub(crate) prompt_token_ids: bool,
    /// Candidates to list at each prompt position, if prompt log-probabilities are requested.
    pub(crate) prompt_logprobs: Option<usize>,
    pub(crate) prompt_candidates: bool,
    /// Stop strings, if the response includes them in the text.
    pub(crate) stops: Vec<String>,
    pub(crate) include_stops: bool,
    /// The token that ends answers.
    pub(crate) end: Option<TokenId>,
    /// Number of answers.
    pub(crate) answers: usize,
}

/// Converts a request for a model. Unsupported fields are refused.
///
/// # Errors
///
/// The invalid field and the allowed values.
pub(crate) async fn read(sent: GenerateRequest, served: &Served) -> Result<Asked, Status> {
    refuse_unsupported(&sent)?;
    let last = sent.truncate_prompt_tokens as usize;
    let (prompt, tokens) = prompt(sent.prompt, last, served).await?;
    let mut request = Request::new(prompt).model(&*served.info.name).priority(priority(sent.priority));
    let mut form = Form { prompt: tokens, answers: 1, ..Form::default() };
    form.end = served.tokenizer.as_ref().and_then(|tokenizer| tokenizer.special().eos);
    if let Some(temperature) = sent.temperature {
        request.sampling.temperature = temperature;
    }
    if let Some(sampling) = sent.sampling {
        sample(&mut request, &sampling)?;
    }
    if let Some(decoding) = sent.decoding {
        decode(&mut request, decoding)?;
    }
    stop(&mut request, &mut form, sent.stopping.unwrap_or_default())?;
    respond(&mut request, &mut form, &sent.response.unwrap_or_default())?;
    if let Some(kv) = sent.kv {
        cache(&mut request, kv)?;
    }
    form.answers = request.n;
    if form.prompt_token_ids && form.prompt.is_none() {
        return Err(invalid("response.prompt_token_ids: the model's tokenizer is not here"));
    }
    Ok(Asked { request, form })
}

fn refuse_unsupported(sent: &GenerateRequest) -> Result<(), Status> {
    if !sent.media.is_empty() {
        return Err(invalid("media: the model takes text alone"));
    }
    if !sent.lora_name.is_empty() {
        return Err(invalid(format!("lora_name: there is no adapter '{}'; allowed is none", sent.lora_name)));
    }
    let inside = sent.engine_reasoning_gate.as_ref().is_some_and(|gate| gate.reasoning_ended == Some(false));
    let constrained = sent.decoding.as_ref().is_some_and(|decoding| decoding.structured_output.is_some());
    if inside && constrained {
        let message =
            "engine_reasoning_gate.reasoning_ended: false is not supported with a structured output";
        return Err(invalid(format!("{message}; send one for the whole output")));
    }
    Ok(())
}

/// Returns the prompt, and its tokens if known, truncated to the last `last` tokens unless `last` is 0.
async fn prompt(
    sent: Option<SentPrompt>,
    last: usize,
    served: &Served,
) -> Result<(Prompt, Option<Vec<TokenId>>), Status> {
    let truncate = |mut tokens: Vec<TokenId>| {
        if last > 0 && tokens.len() > last {
            tokens.drain(..tokens.len() - last);
        }
        tokens
    };
    match sent {
        None => Err(invalid("prompt: text or token_ids is needed")),
        Some(SentPrompt::TokenIds(tokens)) => {
            let tokens = truncate(tokens.ids);
            Ok((Prompt::Tokens(tokens.clone()), Some(tokens)))
        }
        Some(SentPrompt::Text(text)) => {
            let Some(tokenizer) = served.tokenizer.clone() else {
                return match last {
                    0 => Ok((Prompt::Text(text), None)),
                    _ => Err(invalid("truncate_prompt_tokens: the model's tokenizer is not here")),
                };
            };
            let encode = move || {
                let tokens = encode_prompt(&*tokenizer, &text, &EncodeOptions::default());
                Ok((text, tokens))
            };
            let (text, tokens) = status::off_thread(encode).await?;
            if last > 0 && tokens.len() > last {
                let tokens = truncate(tokens);
                return Ok((Prompt::Tokens(tokens.clone()), Some(tokens)));
            }
            // The text is passed on unchanged, since logs show it.
            Ok((Prompt::Text(text), Some(tokens)))
        }
    }
}

/// Converts a priority, where lower values are more urgent and 0 is the default.
fn priority(sent: i32) -> Priority {
    match sent {
        ..0 => Priority::Interactive,
        0 => Priority::Normal,
        1.. => Priority::Batch,
    }
}

fn sample(request: &mut Request, sent: &RandomSampling) -> Result<(), Status> {
    let sampling = &mut request.sampling;
    if let Some(top_k) = sent.top_k {
        sampling.top_k = Some(top_k);
    }
    if let Some(top_p) = sent.top_p {
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(invalid(format!("sampling.top_p: {top_p} is not above 0 and at most 1")));
        }
        sampling.top_p = top_p;
    }
    if let Some(min_p) = sent.min_p {
        sampling.min_p = min_p;
    }
    sampling.seed = sent.seed.map(i64::cast_unsigned);
    request.n = sent.num_sequences.max(1) as usize;
    Ok(())
}

fn decode(request: &mut Request, sent: DecodingParameters) -> Result<(), Status> {
    let (of_answer, of_all) =
        (sent.presence_penalty != 0.0 || sent.frequency_penalty != 0.0, sent.repetition_penalty != 0.0);
    if of_answer && of_all && sent.repetition_penalty != 1.0 {
        let message = "decoding.repetition_penalty counts tokens of the prompt, the other penalties do not; \
                       the engine counts the same tokens for all three: allowed are either";
        return Err(invalid(message));
    }
    let sampling = &mut request.sampling;
    if of_answer || of_all {
        sampling.penalty_window = None;
        sampling.penalize_prompt = !of_answer;
        (sampling.presence_penalty, sampling.frequency_penalty) =
            (sent.presence_penalty, sent.frequency_penalty);
        sampling.repetition_penalty = if of_all { sent.repetition_penalty } else { 1.0 };
    }
    if !sent.allowed_token_ids.is_empty() {
        return Err(invalid(
            "decoding.allowed_token_ids: not supported; a structured output can say the same",
        ));
    }
    sampling.logit_bias = sent.logit_bias.into_iter().collect();
    for bad in sent.bad_words_token_ids {
        let [token] = bad.ids[..] else {
            let tokens = bad.ids.len();
            let message =
                format!("decoding.bad_words_token_ids: a sequence of {tokens} tokens; allowed is one token");
            return Err(invalid(message));
        };
        sampling.logit_bias.retain(|(biased, _)| *biased != token);
        sampling.logit_bias.push((token, f32::NEG_INFINITY));
    }
    // Sorted, so that equal requests compare equal.
    sampling.logit_bias.sort_by_key(|(token, _)| *token);
    request.constraint = match sent.structured_output {
        Some(output) => constraint(output)?,
        None => None,
    };
    Ok(())
}

/// Reads the constraint of a structured output like vLLM's `structured_outputs` on the HTTP routes.
fn constraint(sent: StructuredOutput) -> Result<Option<exsa_core::constraint::Constraint>, Status> {
    let (name, value) = match sent {
        StructuredOutput::Json(schema) => ("json", json!(schema)),
        StructuredOutput::Regex(regex) => ("regex", json!(regex)),
        StructuredOutput::Choice(choice) => ("choice", json!(choice.choices)),
        StructuredOutput::Grammar(grammar) => ("grammar", json!(grammar)),
        StructuredOutput::JsonObject(false) => return Ok(None),
        StructuredOutput::JsonObject(true) => ("json_object", json!(true)),
        StructuredOutput::StructuralTag(tag) => ("structural_tag", json!(tag)),
    };
    let fields = json!({"prompt": "", "structured_outputs": {name: value}});
    let read: Result<Request, _> = serde_json::from_value(fields);
    read.map(|read| read.constraint).map_err(|error| invalid(format!("decoding.{name}: {error}")))
}

fn stop(request: &mut Request, form: &mut Form, sent: StoppingCriteria) -> Result<(), Status> {
    let max = if sent.max_new_tokens == 0 { NEW_TOKENS } else { sent.max_new_tokens };
    request.max_tokens = Some(max as usize);
    request.sampling.min_tokens = sent.min_new_tokens;
    request.stop_tokens = sent.stop_token_ids;
    request.stop.clone_from(&sent.stop_strings);
    request.ignore_eos = sent.ignore_eos;
    (form.stops, form.include_stops) = (sent.stop_strings, sent.include_stop_strings);
    match sent.thinking_token_budget {
        None | Some(-1) => Ok(()),
        Some(budget) => {
            Err(invalid(format!("stopping.thinking_token_budget: {budget} is not supported; allowed is -1")))
        }
    }
}

fn respond(request: &mut Request, form: &mut Form, sent: &ResponseOptions) -> Result<(), Status> {
    form.text = sent.output_text.unwrap_or(true);
    form.token_ids = sent.output_token_ids;
    form.logprobs = sent.output_logprobs;
    form.candidates = candidates("response.output_candidates", sent.output_candidates.as_ref())?;
    if form.logprobs || form.candidates.is_some() {
        request.sampling.logprobs = true;
        // Ranks are positions in this list.
        request.sampling.top_logprobs = CANDIDATES_MAX;
    }
    form.prompt_token_ids = sent.prompt_token_ids;
    let listed = candidates("response.prompt_candidates", sent.prompt_candidates.as_ref())?;
    form.prompt_candidates = listed.is_some();
    form.prompt_logprobs = listed.or(sent.prompt_logprobs.then_some(0));
    request.prompt_logprobs = form.prompt_logprobs.map(|_| CANDIDATES_MAX);
    request.skip_special_tokens = sent.skip_special_tokens.unwrap_or(true);
    Ok(())
}

/// Returns the number of candidates to list at each position.
fn candidates(field: &str, sent: Option<&CandidateTokens>) -> Result<Option<usize>, Status> {
    use candidate_tokens::Select;
    match sent.and_then(|sent| sent.select.as_ref()) {
        None => Ok(None),
        Some(Select::TopN(n)) if *n <= CANDIDATES_MAX => Ok(Some(*n as usize)),
        Some(Select::TopN(n)) => {
            Err(invalid(format!("{field}.top_n: {n} is above the maximum of {CANDIDATES_MAX}")))
        }
        Some(Select::TokenIds(_) | Select::All(_)) => {
            Err(invalid(format!("{field}: allowed is top_n, of {CANDIDATES_MAX} at most")))
        }
    }
}

fn cache(request: &mut Request, sent: KvCacheParameters) -> Result<(), Status> {
    /// Number of requests so far that share no cache.
    static ALONE: AtomicU64 = AtomicU64::new(0);
    if sent.kv_transfer_params.is_some() || sent.ec_transfer_params.is_some() {
        return Err(invalid("kv: transfers of KV between engines are not supported"));
    }
    request.cache_salt = Some(sent.cache_salt).filter(|salt| !salt.is_empty());
    if sent.bypass_prefix_cache {
        let alone = ALONE.fetch_add(1, Ordering::Relaxed);
        let salt = request.cache_salt.take().unwrap_or_default();
        request.cache_salt = Some(format!("alone {alone} {salt}"));
    }
    Ok(())
}
