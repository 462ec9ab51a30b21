//! Converts engine events to responses of the service.

use crate::proto::candidate_token_info::TokenInfo;
use crate::proto::finish_info::{FinishReason as Finish, StopReason};
use crate::proto::{CandidateTokenInfo, FinishInfo, GenerateResponse, PromptInfo, SequenceOutput};
use crate::request::Form;
use crate::status;
use exsa_core::stream::{PromptLogprobs, Token, TopLogprob};
use exsa_core::{Event, FinishReason, TokenId};
use tonic::Status;

/// Converts the events of one request.
#[derive(Debug)]
pub(crate) struct Responses {
    form: Form,
    /// Prompt information, until it was sent with the first response.
    prompt: Option<PromptInfo>,
    /// Tokens generated so far, by answer.
    generated: Vec<u32>,
}

impl Responses {
    pub(crate) fn new(form: Form) -> Self {
        let prompt = form.prompt.as_ref().map(|tokens| PromptInfo {
            num_prompt_tokens: count(tokens.len()),
            token_ids: if form.prompt_token_ids { tokens.clone() } else { Vec::new() },
            ..PromptInfo::default()
        });
        Self { generated: vec![0; form.answers], prompt, form }
    }

    /// Converts an event. Returns the resulting response, if any; `aborted` says whether the client has
    /// aborted the request by its id.
    ///
    /// # Errors
    ///
    /// The status of a request that failed.
    pub(crate) fn take(&mut self, event: Event, aborted: bool) -> Result<Option<GenerateResponse>, Status> {
        let outputs = match event {
            Event::Prompt(part) => {
                self.add_prompt(&part);
                return Ok(None);
            }
            Event::Token(token) | Event::Reasoning(token) => self.token(token),
            Event::MalformedToolCall(call) => self.output(call.index, call.text),
            Event::AnswerFinished(end) => self.end(end.index, end.text, &end.reason, None, aborted)?,
            Event::Finished(end) => {
                let cached = Some(count(end.usage.cached_tokens));
                self.end(end.index, end.text, &end.reason, cached, aborted)?
            }
            _ => return Ok(None),
        };
        Ok(Some(GenerateResponse { prompt_info: self.prompt.take(), outputs: Some(outputs) }))
    }

    fn output(&self, index: usize, text: String) -> SequenceOutput {
        let text = if self.form.text { text } else { String::new() };
        SequenceOutput { index: count(index), text, ..SequenceOutput::default() }
    }

    fn token(&mut self, token: Token) -> SequenceOutput {
        let mut output = self.output(token.index, token.text);
        // Text without an id belongs to the previous token.
        let Some(id) = token.id else { return output };
        if let Some(generated) = self.generated.get_mut(token.index) {
            *generated = generated.saturating_add(1);
        }
        output.num_tokens = 1;
        if self.form.token_ids {
            output.token_ids.push(id);
        }
        if self.form.logprobs {
            output.logprobs.push(token.logprob.unwrap_or(f32::NEG_INFINITY));
            output.ranks.push(rank(id, &token.top_logprobs));
        }
        if let Some(n) = self.form.candidates {
            output.candidate_tokens.push(listed(&token.top_logprobs, n));
        }
        output
    }

    fn end(
        &self,
        index: usize,
        text: String,
        reason: &FinishReason,
        cached: Option<u32>,
        aborted: bool,
    ) -> Result<SequenceOutput, Status> {
        let was_aborted = aborted && *reason == FinishReason::Cancelled;
        if let Some(status) = status::of_reason(reason).filter(|_| !was_aborted) {
            return Err(status);
        }
        let mut output = self.output(index, text);
        let (finish, stop) = match reason {
            FinishReason::EndOfGeneration => (Finish::Stop, self.form.end.map(StopReason::EosTokenId)),
            FinishReason::StopToken(token) => (Finish::Stop, Some(StopReason::StopTokenId(*token))),
            FinishReason::StopString(string) => {
                let string = self.form.stops.get(*string).cloned();
                if let Some(string) = string.as_ref().filter(|_| self.form.include_stops && self.form.text) {
                    output.text.push_str(string);
                }
                (Finish::Stop, string.map(StopReason::StopString))
            }
            FinishReason::MaxTokens | FinishReason::ContextFull => (Finish::Length, None),
            FinishReason::Cancelled => (Finish::Aborted, None),
            _ => (Finish::Stop, None),
        };
        output.finish_info = Some(FinishInfo {
            num_output_tokens: self.generated.get(index).copied().unwrap_or_default(),
            finish_reason: finish.into(),
            stop_reason: stop,
            num_cached_tokens: cached,
            ..FinishInfo::default()
        });
        Ok(output)
    }

    fn add_prompt(&mut self, part: &PromptLogprobs) {
        let Some(n) = self.form.prompt_logprobs else { return };
        let prompt = self.prompt.get_or_insert_default();
        for token in &part.tokens {
            // Nothing precedes the first token, so it has no probability.
            prompt.logprobs.push(token.logprob.unwrap_or_default());
            prompt.ranks.push(rank(token.id, &token.top_logprobs));
            if self.form.prompt_candidates {
                prompt.candidate_tokens.push(listed(&token.top_logprobs, n));
            }
        }
        let known = prompt.logprobs.len();
        prompt.num_prompt_tokens = prompt.num_prompt_tokens.max(count(known));
    }
}

/// Appends a streamed response to the complete answer.
pub(crate) fn append(whole: &mut GenerateResponse, part: GenerateResponse) {
    if part.prompt_info.is_some() {
        whole.prompt_info = part.prompt_info;
    }
    let Some(part) = part.outputs else { return };
    let outputs = whole.outputs.get_or_insert_default();
    outputs.text.push_str(&part.text);
    outputs.num_tokens += part.num_tokens;
    outputs.token_ids.extend(part.token_ids);
    outputs.logprobs.extend(part.logprobs);
    outputs.ranks.extend(part.ranks);
    outputs.candidate_tokens.extend(part.candidate_tokens);
    if part.finish_info.is_some() {
        outputs.finish_info = part.finish_info;
    }
}

/// Returns the rank of a token among the most probable, from 1; 0 if it is not among them.
fn rank(id: TokenId, top: &[TopLogprob]) -> u32 {
    top.iter().position(|candidate| candidate.id == Some(id)).map_or(0, |at| count(at + 1))
}

/// The first `n` of the most probable tokens.
fn listed(top: &[TopLogprob], n: usize) -> CandidateTokenInfo {
    let known = top.iter().enumerate().filter_map(|(at, candidate)| {
        Some(TokenInfo { id: candidate.id?, logprob: candidate.logprob, rank: count(at + 1) })
    });
    CandidateTokenInfo { tokens: known.take(n).collect() }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
