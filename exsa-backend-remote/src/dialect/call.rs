//! A request for an answer, apart from the protocol.

use crate::capabilities::Capabilities;
use crate::dialect::{Dialect, unsupported};
use crate::options::RemoteOptions;
use exsa_core::constraint::{Constraint, Grammar, JsonWhitespace};
use exsa_core::request::Prompt;
use exsa_core::tools::ToolChoice;
use exsa_core::{Overflow, Priority, Request, SubmitError, TokenId};
use serde_json::{Value, json};

/// A prompt as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WirePrompt {
    /// Token ids.
    Tokens(Vec<TokenId>),
    /// The prompt of the request, as it is.
    AsGiven,
}

/// A request for an answer.
pub(crate) struct Call<'a> {
    /// Id of the request at the engine.
    pub(crate) id: &'a str,
    /// Name of the model at the engine.
    pub(crate) model: &'a str,
    /// The request, with the limits that are left, its stop tokens and its seed.
    pub(crate) request: &'a Request,
    pub(crate) prompt: &'a WirePrompt,
    /// Whether the caller set stop tokens, beside the model's end tokens.
    pub(crate) has_own_stop_tokens: bool,
    /// Tokens of the model's context; 0 where unknown.
    pub(crate) context: usize,
    /// Tokens of the prompt, where known.
    pub(crate) prompt_tokens: Option<usize>,
    pub(crate) options: &'a RemoteOptions,
}

impl<'a> Call<'a> {
    /// The prompt as token ids or text, for the field `prompt`. `None` for a conversation.
    pub(crate) fn text_or_ids(&self) -> Option<Value> {
        match (self.prompt, &self.request.prompt) {
            (WirePrompt::Tokens(ids), _) | (WirePrompt::AsGiven, Prompt::Tokens(ids)) => Some(json!(ids)),
            (WirePrompt::AsGiven, Prompt::Text(text)) => Some(json!(text)),
            _ => None,
        }
    }

    /// The request's priority as a number of classes above the least urgent, from 0 to 2, where it is sent.
    pub(crate) fn urgency(&self) -> Option<i64> {
        self.options.priorities.then_some(match self.request.priority {
            Priority::Interactive => 2,
            Priority::Normal => 1,
            Priority::Batch => 0,
        })
    }

    /// Tokens at the start of the sent prompt that additive penalties do not count: the prompt, where it is
    /// not penalized, without tokens of the answer that were generated before.
    pub(crate) fn penalized_from(&self) -> Option<usize> {
        self.prompt_tokens.filter(|_| !self.request.sampling.penalize_prompt)
    }

    /// The adapter of the request, if the engine takes it by the name of the model.
    pub(crate) fn adapter(&self, capabilities: &Capabilities) -> Option<&'a str> {
        match &self.request.adapters[..] {
            [adapter] if adapter.scale == 1.0 && capabilities.dialect == Dialect::Vllm => Some(&adapter.name),
            _ => None,
        }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.request.sampling.seed.unwrap_or_default()
    }

    /// Number of most probable tokens to ask for; `None` if no log-probabilities are wanted.
    pub(crate) fn logprobs(&self) -> Option<u32> {
        let sampling = &self.request.sampling;
        (sampling.logprobs || sampling.top_logprobs > 0).then_some(sampling.top_logprobs)
    }
}

/// Refuses what no engine or not this engine can do.
pub(crate) fn check_common(call: &Call<'_>, capabilities: &Capabilities) -> Result<(), SubmitError> {
    let (request, engine) = (call.request, capabilities.dialect.name());
    if !request.transforms.is_empty() {
        return Err(unsupported("transforms", "the host's transforms run in the in-process engine alone"));
    }
    if request.n != 1 || request.best_of.is_some_and(|best_of| best_of > 1) {
        return Err(unsupported("n", "a remote engine gives one answer to a request; send several requests"));
    }
    if request.prompt_logprobs.is_some() {
        return Err(unsupported("prompt_logprobs", "engines do not give them with a stream"));
    }
    let names_adapters = capabilities.dialect == Dialect::Exsa || call.adapter(capabilities).is_some();
    if !(request.adapters.is_empty() || names_adapters) {
        let reason = match capabilities.dialect {
            Dialect::Vllm => "vLLM takes one adapter, at scale 1".to_owned(),
            _ => format!("{engine} takes no adapters by this client"),
        };
        return Err(unsupported("lora", reason));
    }
    if request.overflow != Overflow::Refuse {
        return Err(unsupported("overflow", "a remote engine refuses prompts that do not fit"));
    }
    if !request.banned_strings.is_empty() {
        return Err(unsupported("banned_strings", "tokens of a remote engine cannot be taken back"));
    }
    if request.reasoning.budget.is_some() {
        return Err(unsupported("thinking_budget", "it is not sent to remote engines"));
    }
    if call.logprobs().is_some() && !capabilities.logprobs {
        return Err(unsupported("logprobs", format!("{engine} gives none with a stream of token ids")));
    }
    if request.cache_salt.is_some() && !capabilities.cache_salt && !call.options.ignore_cache_salt {
        let reason =
            format!("{engine} has no salt for its prefix cache; see RemoteOptions::ignore_cache_salt");
        return Err(unsupported("cache_salt", reason));
    }
    if let Some(max) = capabilities.seed_max.filter(|max| call.seed() > *max) {
        let problem = format!("{}, but {engine} accepts 0 to {max}", call.seed());
        return Err(SubmitError::Option { option: "seed", problem });
    }
    let is_chat = matches!(request.prompt, Prompt::Chat(_)) && *call.prompt == WirePrompt::AsGiven;
    let forced = matches!(request.tools.choice, ToolChoice::Required | ToolChoice::Named(_));
    if (forced || request.tools.strict) && !(is_chat && capabilities.forced_tools) {
        let reason = format!("{engine} cannot be forced to call tools by this route");
        return Err(unsupported("tool_choice", reason));
    }
    Ok(())
}

/// The grammar of a constraint for the whole answer, and whether its JSON may have any white space.
///
/// # Errors
///
/// Constraints of a part of the answer, which engines have no field for.
pub(crate) fn grammar_of(constraint: &Constraint) -> Result<(&Grammar, bool), SubmitError> {
    if constraint.trigger.is_some() || constraint.reasoning_end.is_some() {
        return Err(unsupported("constraint", "a remote engine restricts the whole answer or none of it"));
    }
    Ok((&constraint.grammar, constraint.whitespace == JsonWhitespace::Any))
}

/// A JSON schema as a value.
pub(crate) fn schema_value(schema: &exsa_core::constraint::JsonSchema) -> Result<Value, SubmitError> {
    let problem = |error: &dyn std::fmt::Display| SubmitError::Option {
        option: "json_schema",
        problem: error.to_string(),
    };
    // Exsa's own reader limits the depth.
    schema.json().map_err(|error| problem(&error))?;
    serde_json::from_str(schema.as_str()).map_err(|error| problem(&error))
}

/// Refuses a grammar that the engine does not know.
pub(crate) fn refused_grammar(engine: &str, known: &[&str]) -> SubmitError {
    unsupported("constraint", format!("{engine} takes {}", known.join(", ")))
}
