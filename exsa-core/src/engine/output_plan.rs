//! Parsers of a request's answers: which formats apply, and how the answers begin.

#[cfg(feature = "tool-parsers")]
use crate::chat::ToolFallback;
use crate::chat::{ChatOptions, ChatTemplate, Json};
use crate::constraint::{Constraint, ConstraintError};
use crate::engine::output::Output;
use crate::generator::SubmitError;
#[cfg(feature = "tool-parsers")]
use crate::request::Prompt;
use crate::request::Request;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use crate::tools::ToolChoice;
#[cfg(feature = "tool-parsers")]
use crate::tools::{GrammarOptions, OutputParser, ReasoningFormat, ToolFormat, call_constraint, detect};

/// Number of tokens at the end of a prompt whose text is inspected.
#[cfg(feature = "tool-parsers")]
const PROMPT_TAIL_TOKENS: usize = 64;

/// The text that a prompt ends with.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "tool-parsers"), allow(dead_code))] // Only parsers read it.
pub(super) struct PromptEnd {
    pub(super) text: String,
    /// As in [`Rendered`](crate::chat::Rendered).
    pub(super) protected_offsets: Vec<usize>,
}

/// Plan for parsing the answers of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct OutputPlan {
    #[cfg(feature = "tool-parsers")]
    formats: Option<(ToolFormat, ReasoningFormat)>,
    tools: Vec<Json>,
    end: PromptEnd,
    show_control: bool,
    /// Number of tool calls after which an answer ends.
    pub(super) calls_max: usize,
}

impl OutputPlan {
    /// The plan for `request`, whose prompt is the first `prompt_len` of `tokens`. `template` and `end` are
    /// set for a conversation.
    ///
    /// # Errors
    ///
    /// The request has options that need a parser, but no format is known.
    pub(super) fn new(
        request: &Request,
        template: Option<&ChatTemplate>,
        end: Option<PromptEnd>,
        tokens: &[TokenId],
        tokenizer: &dyn Tokenizer,
        architecture: &str,
    ) -> Result<Self, SubmitError> {
        check(request)?;
        #[cfg(not(feature = "tool-parsers"))]
        {
            let _ = (template, end, tokens, tokenizer, architecture);
            disabled(request)?;
            Ok(Self { calls_max: usize::MAX, ..Self::default() })
        }
        #[cfg(feature = "tool-parsers")]
        {
            let found = template.map(|template| detect(template.source(), architecture));
            let has_tools = !request.chat.tools.is_empty();
            let tools = match (&request.tools.choice, request.tools.format) {
                (ToolChoice::None, _) => ToolFormat::None,
                (_, Some(format)) => format,
                (_, None) if !has_tools => ToolFormat::None,
                (_, None) => match found.map(|found| found.tools) {
                    // The format described by the text that lists the tools in the prompt.
                    Some(ToolFormat::None) if tools_as_text(request, template) => ToolFormat::Hermes,
                    // No format is recognized: the whole answer is JSON.
                    Some(ToolFormat::None) => ToolFormat::Json,
                    Some(format) => format,
                    None => ToolFormat::None,
                },
            };
            let detected = found.map_or(ReasoningFormat::None, |found| found.reasoning);
            let reasoning = request.reasoning.format.unwrap_or(detected);
            let formats = (tools, reasoning);
            let needed = formats != (ToolFormat::None, ReasoningFormat::None) || !request.skip_special_tokens;
            if request.reasoning.budget.is_some() && reasoning == ReasoningFormat::None {
                return Err(SubmitError::Option {
                    option: "thinking_budget",
                    problem: "the reasoning format is not known; set reasoning_format".to_owned(),
                });
            }
            let end = match (&request.prompt, end) {
                _ if !needed => PromptEnd::default(),
                (_, Some(end)) => end,
                (Prompt::Text(text), None) => PromptEnd { text: text.clone(), protected_offsets: Vec::new() },
                _ => PromptEnd { text: tail(tokens, tokenizer), protected_offsets: Vec::new() },
            };
            let single = !request.tools.parallel && tools != ToolFormat::None;
            Ok(Self {
                formats: needed.then_some(formats),
                tools: if needed { request.chat.tools.clone() } else { Vec::new() },
                end,
                show_control: !request.skip_special_tokens,
                calls_max: if single { 1 } else { usize::MAX },
            })
        }
    }

    /// Whether answers are parsed.
    pub(super) fn is_parsed(&self) -> bool {
        #[cfg(feature = "tool-parsers")]
        return self.formats.is_some();
        #[cfg(not(feature = "tool-parsers"))]
        return false;
    }

    /// The constraint of the answers: that of the request, or the grammar of its tool calls.
    ///
    /// # Errors
    ///
    /// The request has both.
    pub(super) fn constraint(
        &self,
        request: &mut Request,
        tokenizer: &dyn Tokenizer,
    ) -> Result<Option<Constraint>, SubmitError> {
        let forced = matches!(request.tools.choice, ToolChoice::Required | ToolChoice::Named(_));
        let constraint = request.constraint.take();
        if forced && constraint.is_some() {
            return Err(ConstraintError::Conflict("tool_choice").into());
        }
        #[cfg(feature = "tool-parsers")]
        let mut constraint = constraint;
        #[cfg(feature = "tool-parsers")]
        if let Some((format, reasoning)) = self.formats {
            let parser = self.parser(0).map(|parser| parser.reasoning_end().is_some());
            let in_reasoning = parser.unwrap_or_default();
            let strict = request.tools.strict && constraint.is_none();
            if forced || strict {
                let reasons = request.reasoning.is_enabled() != Some(false);
                let options = GrammarOptions::default()
                    .parallel(request.tools.parallel)
                    .in_reasoning(in_reasoning)
                    .reasoning(Some(reasoning).filter(|_| reasons || in_reasoning))
                    .begun(self.end.text.ends_with(">>>"));
                let (tools, choice) = (&self.tools, &request.tools.choice);
                constraint = call_constraint(format, tools, choice, options, tokenizer)?;
                if forced && constraint.is_none() {
                    let problem = format!("the format '{format}' cannot be forced");
                    return Err(SubmitError::Option { option: "tool_choice", problem });
                }
            } else if let Some(constraint) = constraint.as_mut().filter(|_| in_reasoning)
                && constraint.reasoning_end.is_none()
            {
                // The constraint applies to the answer, not to the reasoning before it.
                constraint.reasoning_end = self.parser(0).and_then(|parser| parser.reasoning_end());
                let end = constraint.reasoning_end.as_deref().map(str::trim).map(str::to_owned);
                constraint.reasoning_end = end;
            }
        }
        let _ = tokenizer;
        Ok(constraint)
    }

    /// The output of answer `index`; the ids of its tool calls are derived from `seed`.
    pub(super) fn output(&self, index: usize, seed: u64) -> Output {
        let output = Output::new(index);
        #[cfg(feature = "tool-parsers")]
        let output = output.parser(self.parser(seed));
        let _ = (seed, &self.tools, &self.end, self.show_control);
        output
    }

    #[cfg(feature = "tool-parsers")]
    fn parser(&self, seed: u64) -> Option<OutputParser> {
        let (tools, reasoning) = self.formats?;
        let parser = OutputParser::new(tools, reasoning, &self.tools)
            .id_seed(seed)
            .show_control(self.show_control)
            .after_prompt(&self.end.text, &self.end.protected_offsets);
        Some(parser)
    }
}

/// Template options that implement the request's reasoning options; `None` if there are none.
pub(super) fn chat_options(request: &Request, template: &ChatTemplate) -> Option<ChatOptions> {
    let reasoning = &request.reasoning;
    let enabled = reasoning.is_enabled();
    let budget = reasoning.budget.filter(|_| template.source().contains("thinking_budget"));
    if enabled.is_none() && reasoning.effort.is_none() && budget.is_none() {
        return None;
    }
    let mut options = request.chat.clone();
    // Options and variables set by the host take precedence.
    options.enable_thinking = options.enable_thinking.or(enabled);
    if let Some(effort) = reasoning.effort {
        options.reasoning_effort.get_or_insert_with(|| effort.name().to_owned());
    }
    if let Some(budget) = budget {
        options.variables.entry("thinking_budget".to_owned()).or_insert(Json::Int(budget as i128));
    }
    Some(options)
}

fn check(request: &Request) -> Result<(), SubmitError> {
    let refused = |problem: String| Err(SubmitError::Option { option: "tool_choice", problem });
    let names = || request.chat.tools.iter().filter_map(tool_name);
    match &request.tools.choice {
        ToolChoice::Required if request.chat.tools.is_empty() => {
            refused("required, but the request has no tools".to_owned())
        }
        ToolChoice::Named(name) if !names().any(|tool| tool == name) => {
            let known = names().collect::<Vec<_>>().join(", ");
            refused(format!("'{name}' is not a tool of the request; its tools: {known}"))
        }
        _ => Ok(()),
    }
}

fn tool_name(tool: &Json) -> Option<&str> {
    tool.get("function").unwrap_or(tool).get("name").and_then(Json::as_str)
}

#[cfg(not(feature = "tool-parsers"))]
fn disabled(request: &Request) -> Result<(), SubmitError> {
    let option = match request {
        _ if matches!(request.tools.choice, ToolChoice::Required | ToolChoice::Named(_)) => "tool_choice",
        _ if request.tools.format.is_some() => "tool_format",
        _ if request.reasoning.format.is_some() => "reasoning_format",
        _ if request.reasoning.budget.is_some() => "thinking_budget",
        _ if !request.skip_special_tokens => "skip_special_tokens",
        _ => return Ok(()),
    };
    let problem = "it needs the feature 'tool-parsers' of exsa-core, which is not enabled in this program";
    Err(SubmitError::Option { option, problem: problem.to_owned() })
}

/// Whether the prompt lists its tools as text, because the template does not support tools.
#[cfg(feature = "tool-parsers")]
fn tools_as_text(request: &Request, template: Option<&ChatTemplate>) -> bool {
    request.chat.tool_fallback == ToolFallback::Text
        && template.is_some_and(|template| !template.supports().tools)
}

/// The text of the last tokens, including the text of control tokens.
#[cfg(feature = "tool-parsers")]
fn tail(tokens: &[TokenId], tokenizer: &dyn Tokenizer) -> String {
    let mut bytes = Vec::new();
    for token in &tokens[tokens.len().saturating_sub(PROMPT_TAIL_TOKENS)..] {
        match tokenizer.token_text(*token).filter(|_| tokenizer.is_control(*token)) {
            Some(text) => bytes.extend(text.as_bytes()),
            None => tokenizer.piece(*token, &mut bytes),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
