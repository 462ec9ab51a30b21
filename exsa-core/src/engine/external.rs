//! Prompt encoding and answer decoding for engines outside this process, with the code of the in-process
//! engine.

use crate::chat::{ChatTemplate, ChatTemplateSource, ChatTemplates, Message, Rendered};
use crate::engine::output::Output;
use crate::engine::output_plan::{OutputPlan, PromptEnd, chat_options};
use crate::finish::FinishReason;
use crate::generator::SubmitError;
use crate::model_info::ModelInfo;
use crate::request::{Prompt, Request};
use crate::stream::{Event, StreamSender, Token};
use crate::text::{Detokenizer, Released, StopMatcher};
use crate::token::TokenId;
use crate::tokenizer::{EncodeOptions, SpecialIds, Tokenizer, encode_prompt};
use std::fmt;
use std::sync::Arc;

/// Tokenizer and chat templates of a model that runs elsewhere. Prompts are encoded exactly as by the
/// in-process [`Engine`](crate::Engine). For implementations of [`Generator`](crate::Generator).
pub struct PromptEncoder {
    tokenizer: Arc<dyn Tokenizer>,
    templates: ChatTemplates,
    architecture: String,
}

/// A prompt as token ids.
#[derive(Clone, Debug)]
pub struct EncodedPrompt {
    /// The ids, including BOS if the model requires it.
    pub tokens: Vec<TokenId>,
    /// The template of a conversation.
    template: Option<Arc<ChatTemplate>>,
    /// The end of a conversation's text.
    end: Option<PromptEnd>,
}

impl PromptEncoder {
    /// An encoder with the chat templates of `info`.
    pub fn new(info: &ModelInfo, tokenizer: Arc<dyn Tokenizer>) -> Self {
        let templates = ChatTemplates::new(info, tokenizer.clone());
        Self { tokenizer, templates, architecture: info.architecture.clone() }
    }

    /// Replaces the chat template, as [`EngineOptions::chat_template`](crate::EngineOptions) does.
    #[must_use]
    pub fn chat_template(mut self, source: Option<ChatTemplateSource>) -> Self {
        self.templates = self.templates.replace(source);
        self
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.tokenizer
    }

    /// The text of a request's prompt.
    ///
    /// # Errors
    ///
    /// The conversation cannot be rendered, or the prompt consists of token ids, which have no text.
    pub fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        match &request.prompt {
            Prompt::Text(text) => Ok(Rendered { text: text.clone(), protected_offsets: Vec::new() }),
            Prompt::Chat(messages) => Ok(self.render_chat(messages, request)?.1),
            Prompt::Tokens(_) => {
                let reason = "a prompt of token ids has no text".into();
                Err(SubmitError::Unsupported { operation: "render", reason })
            }
        }
    }

    /// The token ids of a request's prompt.
    ///
    /// # Errors
    ///
    /// The reason why a conversation cannot be rendered.
    pub fn encode(&self, request: &Request) -> Result<EncodedPrompt, SubmitError> {
        let plain = |tokens| Ok(EncodedPrompt { tokens, template: None, end: None });
        match &request.prompt {
            Prompt::Tokens(ids) => plain(ids.clone()),
            Prompt::Text(text) => {
                let options = EncodeOptions::default().parse_special(request.parse_special);
                plain(encode_prompt(&*self.tokenizer, text, &options))
            }
            Prompt::Chat(messages) => {
                let (template, rendered) = self.render_chat(messages, request)?;
                let tokens = encode_prompt(&*self.tokenizer, &rendered.text, &rendered.encode_options());
                let end = PromptEnd { text: rendered.text, protected_offsets: rendered.protected_offsets };
                Ok(EncodedPrompt { tokens, template: Some(template), end: Some(end) })
            }
        }
    }

    fn render_chat(
        &self,
        messages: &[Message],
        request: &Request,
    ) -> Result<(Arc<ChatTemplate>, Rendered), SubmitError> {
        let template = self.templates.select(&request.chat)?;
        let options = chat_options(request, &template);
        let rendered = template.render(messages, options.as_ref().unwrap_or(&request.chat))?;
        Ok((template, rendered))
    }

    /// The decoder of an answer to `request`, whose prompt is `prompt`. The ids of tool calls are derived
    /// from `seed`.
    ///
    /// # Errors
    ///
    /// Invalid stop strings or tool options.
    pub fn decoder(
        &self,
        request: &Request,
        prompt: &EncodedPrompt,
        seed: u64,
    ) -> Result<AnswerDecoder, SubmitError> {
        let (template, end) = (prompt.template.as_deref(), prompt.end.clone());
        let tokenizer = self.tokenizer.clone();
        let plan = OutputPlan::new(request, template, end, &prompt.tokens, &*tokenizer, &self.architecture)?;
        let preceded = prompt.tokens.iter().any(|token| !tokenizer.is_control(*token));
        let mut decoder = AnswerDecoder::with_plan(request, &plan, tokenizer, preceded)?;
        // Calls of later answers in the conversation differ by the length of the prompt.
        decoder.output = plan.output(0, seed.wrapping_add((prompt.tokens.len() as u64) << 32));
        Ok(decoder)
    }
}

impl fmt::Debug for PromptEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromptEncoder").field("n_vocab", &self.tokenizer.n_vocab()).finish_non_exhaustive()
    }
}

/// Turns the tokens or the text of an engine outside this process into the events of a stream, as the
/// in-process engine does: it assembles whole characters, applies stop strings, stop tokens and the token
/// limit, and parses reasoning and tool calls.
pub struct AnswerDecoder {
    tokenizer: Arc<dyn Tokenizer>,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    output: Output,
    /// Tokens that end the answer, sorted.
    stop_tokens: Vec<TokenId>,
    /// End-of-generation tokens, sorted; empty if ignored.
    end_of_generation: Vec<TokenId>,
    calls_max: usize,
    tokens: usize,
    tokens_max: usize,
}

/// Effect of a token or a text on its answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DecoderStep {
    /// The answer continues.
    Continue,
    /// The answer continues once its stream has room.
    StreamFull,
    /// The answer has ended.
    End(FinishReason),
}

impl AnswerDecoder {
    /// The decoder of an answer that is received as text, if the engine's tokenizer is unknown.
    ///
    /// # Errors
    ///
    /// Invalid stop strings or tool options.
    pub fn of_text(request: &Request) -> Result<Self, SubmitError> {
        let tokenizer = Arc::new(NoVocabulary(SpecialIds::default()));
        let plan = OutputPlan::new(request, None, None, &[], &*tokenizer, "")?;
        let mut decoder = Self::with_plan(request, &plan, tokenizer, true)?;
        decoder.output = plan.output(0, request.sampling.seed.unwrap_or_default());
        Ok(decoder)
    }

    fn with_plan(
        request: &Request,
        plan: &OutputPlan,
        tokenizer: Arc<dyn Tokenizer>,
        preceded: bool,
    ) -> Result<Self, SubmitError> {
        let mut stop = StopMatcher::new(&request.stop)?;
        if plan.is_parsed() {
            stop.keep_controls();
        }
        let mut stop_tokens = request.stop_tokens.clone();
        stop_tokens.sort_unstable();
        let end_of_generation = match request.ignore_eos {
            true => Vec::new(),
            false => tokenizer.special().end_of_generation.clone(),
        };
        Ok(Self {
            detokenizer: Detokenizer::new(&*tokenizer, preceded),
            tokenizer,
            stop,
            output: Output::new(0),
            stop_tokens,
            end_of_generation,
            calls_max: plan.calls_max,
            tokens: 0,
            tokens_max: request.max_tokens.unwrap_or(usize::MAX),
        })
    }

    /// Number of tokens processed so far, including the token that ended the answer.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether `id` ends the answer.
    pub fn ends(&self, id: TokenId) -> bool {
        self.stop_tokens.binary_search(&id).is_ok() || self.end_of_generation.binary_search(&id).is_ok()
    }

    /// The finish reason of an answer that ends with `id`, a token for which [`ends`](Self::ends) is true.
    pub fn end_of(&self, id: TokenId) -> FinishReason {
        match self.stop_tokens.binary_search(&id) {
            Ok(_) => FinishReason::StopToken(id),
            Err(_) => FinishReason::EndOfGeneration,
        }
    }

    /// Processes the token `id` and emits it with the text that became certain. `token` holds its
    /// log-probabilities. A token that ends the answer by its id is not emitted.
    pub fn token(&mut self, id: TokenId, token: Token, stream: &StreamSender) -> DecoderStep {
        let mut text = self.released();
        let reason = self.take(id, &mut text);
        if let Some(reason @ (FinishReason::StopToken(_) | FinishReason::EndOfGeneration)) = reason {
            return DecoderStep::End(reason);
        }
        self.emit(Token { id: Some(id), ..token }, text, reason, stream)
    }

    /// Processes text of the answer that consists of `tokens` tokens, and emits it as `token`.
    pub fn text(&mut self, text: &str, tokens: usize, token: Token, stream: &StreamSender) -> DecoderStep {
        self.tokens = self.tokens.saturating_add(tokens);
        let mut released = self.released();
        let reason = self.stop.push_into(text, &mut released).map(FinishReason::StopString);
        self.emit(token, released, reason, stream)
    }

    fn emit(
        &mut self,
        token: Token,
        text: Released,
        reason: Option<FinishReason>,
        stream: &StreamSender,
    ) -> DecoderStep {
        let has_room = self.output.token(token, text, stream);
        match self.after(reason) {
            Some(reason) => DecoderStep::End(reason),
            None if has_room => DecoderStep::Continue,
            None => DecoderStep::StreamFull,
        }
    }

    /// Replays tokens whose text was emitted before. Returns the finish reason if the answer ended with one
    /// of them.
    pub fn replay(&mut self, tokens: &[TokenId]) -> Option<FinishReason> {
        for id in tokens {
            let mut text = self.released();
            let reason = self.take(*id, &mut text);
            self.output.replay(&text);
            if let Some(reason) = self.after(reason) {
                return Some(reason);
            }
        }
        None
    }

    fn take(&mut self, id: TokenId, text: &mut Released) -> Option<FinishReason> {
        self.tokens += 1;
        self.stop.push_control(&*self.tokenizer, id);
        if self.stop_tokens.binary_search(&id).is_ok() {
            return Some(FinishReason::StopToken(id));
        }
        if self.end_of_generation.binary_search(&id).is_ok() {
            return Some(FinishReason::EndOfGeneration);
        }
        let mut decoded = String::new();
        self.detokenizer.push(&*self.tokenizer, id, &mut decoded);
        match self.stop.push_into(&decoded, text) {
            Some(index) => Some(FinishReason::StopString(index)),
            None => (self.tokens >= self.tokens_max).then_some(FinishReason::MaxTokens),
        }
    }

    /// Ends the answer after its last tool call.
    fn after(&self, reason: Option<FinishReason>) -> Option<FinishReason> {
        reason.or_else(|| (self.output.calls() >= self.calls_max).then_some(FinishReason::ToolCall))
    }

    fn released(&self) -> Released {
        Released { keep_controls: self.stop.keeps_controls(), ..Released::default() }
    }

    /// Ends the answer and releases the held-back text. The reason becomes
    /// [`StopString`](FinishReason::StopString) if the last text completes a stop string. Events and text are
    /// to be sent together with the answer's last event ([`StreamSender::finish_with`]).
    pub fn finish(&mut self, mut reason: FinishReason) -> (FinishReason, Vec<Event>, String) {
        let mut text = self.released();
        if !self.stop.has_matched() {
            let mut decoded = String::new();
            self.detokenizer.finish(&mut decoded);
            let found = self.stop.push_into(&decoded, &mut text).or_else(|| self.stop.finish_into(&mut text));
            if let Some(index) = found {
                reason = FinishReason::StopString(index);
            }
        }
        let (events, text) = self.output.finish(text);
        (reason, events, text)
    }
}

impl fmt::Debug for AnswerDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerDecoder").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// Placeholder for an unknown tokenizer: no token has text.
struct NoVocabulary(SpecialIds);

impl Tokenizer for NoVocabulary {
    fn n_vocab(&self) -> usize {
        0
    }

    fn encode(&self, _text: &str, _options: &EncodeOptions<'_>, _out: &mut Vec<TokenId>) {}

    fn piece(&self, _id: TokenId, _out: &mut Vec<u8>) {}

    fn token_text(&self, _id: TokenId) -> Option<&str> {
        None
    }

    fn is_control(&self, _id: TokenId) -> bool {
        false
    }

    fn control_tokens(&self) -> Vec<(TokenId, String)> {
        Vec::new()
    }

    fn leading_space(&self) -> bool {
        false
    }

    fn special(&self) -> &SpecialIds {
        &self.0
    }
}
