//! Converts embedding and rerank requests to jobs, on the caller's thread.

use crate::backend::Pooling;
use crate::embed::{
    EmbedInput, EmbedOutput, EmbedRequest, Pending, RerankOutput, RerankRequest, Truncate, pending,
};
use crate::engine::embed_job::{EmbedJob, Reply};
use crate::engine::input_processor::InputProcessor;
use crate::engine::mailbox::Command;
use crate::generator::SubmitError;
use crate::priority::Priority;
use crate::token::{RequestId, TokenId};
use crate::tokenizer::{EncodeOptions, SpecialIds, Tokenizer};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Settings that both kinds of request share.
struct Settings {
    priority: Priority,
    user: Arc<str>,
    timeout: Option<Duration>,
}

impl InputProcessor {
    pub(crate) fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        let refused = |reason: &str| SubmitError::Unsupported { operation: "embed", reason: reason.into() };
        match self.info.capabilities.embed {
            Some(Pooling::Rank) => {
                return Err(refused("the model is a reranker, which computes scores, not embeddings"));
            }
            Some(_) => {}
            None => {
                return Err(refused(
                    "the session does not support embeddings; load an embedding model, or set \
                     SessionOptions::pooling",
                ));
            }
        }
        if request.dimensions == Some(0) {
            return Err(SubmitError::Option {
                option: "dimensions",
                problem: "0, but at least 1 is allowed".into(),
            });
        }
        if request.inputs.is_empty() {
            return Err(SubmitError::Option { option: "inputs", problem: "no text".into() });
        }
        let texts = request.inputs.iter().enumerate().map(|(index, input)| {
            let (mut tokens, start, end) = match input {
                EmbedInput::Tokens(tokens) => (tokens.clone(), 0, 0),
                EmbedInput::Text(text) => single(&*self.tokenizer, text),
            };
            self.check_text(index, &mut tokens, request.truncate, start, end)?;
            Ok(tokens)
        });
        let texts = texts.collect::<Result<Vec<_>, SubmitError>>()?;
        let (priority, timeout) = (request.priority, request.timeout);
        let settings = Settings { priority, user: request.user.unwrap_or_default().into(), timeout };
        let (id, to, output) = self.pending();
        let reply = Reply::Vectors { to, normalize: request.normalize, dimensions: request.dimensions };
        self.post_texts(id, texts, reply, settings)?;
        Ok(output)
    }

    pub(crate) fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        if self.info.capabilities.embed != Some(Pooling::Rank) {
            let reason = "the model is not a reranker; load a reranker model".into();
            return Err(SubmitError::Unsupported { operation: "rerank", reason });
        }
        if request.documents.is_empty() {
            return Err(SubmitError::Option { option: "documents", problem: "no document".into() });
        }
        let texts = request.documents.iter().enumerate().map(|(index, document)| {
            let (mut tokens, start, end) = pair(&*self.tokenizer, &request.query, document);
            self.check_text(index, &mut tokens, request.truncate, start, end)?;
            Ok(tokens)
        });
        let texts = texts.collect::<Result<Vec<_>, SubmitError>>()?;
        let (priority, timeout) = (request.priority, request.timeout);
        let settings = Settings { priority, user: request.user.unwrap_or_default().into(), timeout };
        let (id, to, output) = self.pending();
        self.post_texts(id, texts, Reply::Scores(to), settings)?;
        Ok(output)
    }

    /// Refuses a text that is empty, contains unknown token ids or is too long. If truncation is allowed, a
    /// long text is truncated, but its first `start` and last `end` tokens are kept.
    fn check_text(
        &self,
        index: usize,
        tokens: &mut Vec<TokenId>,
        truncate: Truncate,
        start: usize,
        end: usize,
    ) -> Result<(), SubmitError> {
        let n_vocab = self.info.model.n_vocab;
        if tokens.is_empty() {
            return Err(SubmitError::EmptyText { index });
        }
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= n_vocab) {
            return Err(SubmitError::InvalidToken { token, n_vocab });
        }
        let (limit, what) = self.text_limit();
        if tokens.len() <= limit {
            return Ok(());
        }
        if cut(tokens, limit, truncate, start, end) {
            Ok(())
        } else {
            Err(SubmitError::TextTooLong { index, tokens: tokens.len(), limit, what })
        }
    }

    /// Maximum tokens of a text in one pass, and the limit's name.
    pub(crate) fn text_limit(&self) -> (usize, &'static str) {
        let limits = [
            (self.info.capabilities.context_tokens_max, "the context"),
            (self.info.capabilities.kv_tokens_max, "the KV cache"),
            (self.batch_tokens_max(), "the batch"),
        ];
        limits.into_iter().min_by_key(|(limit, _)| *limit).unwrap_or_default()
    }

    /// Maximum tokens in one batch.
    pub(crate) fn batch_tokens_max(&self) -> usize {
        self.info.capabilities.batch_tokens_max.min(self.options.session.batch_tokens_max)
    }

    /// A new request id, and the two ends of its output channel.
    fn pending<T>(&self) -> (RequestId, crate::embed::PendingSender<T>, Pending<T>) {
        let id = RequestId(self.ids.fetch_add(1, Ordering::Relaxed));
        let (mailbox, in_flight) = (self.mailbox.clone(), self.in_flight.clone());
        let (sender, output) = pending(move || {
            // A closed mailbox has ended the request already.
            let _ = mailbox.post(Command::Cancel(id));
            in_flight.cancel(id);
        });
        (id, sender, output)
    }

    fn post_texts(
        &self,
        id: RequestId,
        texts: Vec<Vec<TokenId>>,
        reply: Reply,
        settings: Settings,
    ) -> Result<(), SubmitError> {
        let Settings { priority, user, timeout } = settings;
        let job = EmbedJob::new(id, texts, reply, priority, user.clone(), self.clock.now(), timeout);
        let user_limit = self.options.user_queue_max.unwrap_or(usize::MAX);
        self.admission.enter(priority, &user, 1, self.options.queue_max, user_limit)?;
        self.mailbox.post(Command::Embed(Box::new(job))).map_err(|_| {
            self.admission.leave(priority, &user);
            SubmitError::ShuttingDown
        })
    }
}

/// Truncates `tokens` to `limit` tokens, but keeps the first `start` and the last `end`. Returns `false`,
/// without a change, if `truncate` refuses, or if the kept tokens alone fill the limit, as when a query
/// leaves no token for its document.
fn cut(tokens: &mut Vec<TokenId>, limit: usize, truncate: Truncate, start: usize, end: usize) -> bool {
    if start + end >= limit {
        return false;
    }
    match truncate {
        Truncate::Refuse => return false,
        Truncate::Start => tokens.drain(start..start + tokens.len() - limit),
        Truncate::End => tokens.drain(limit - end..tokens.len() - end),
    };
    true
}

fn encode(tokenizer: &dyn Tokenizer, text: &str, tokens: &mut Vec<TokenId>) {
    tokenizer.encode(text, &EncodeOptions::default(), tokens);
}

fn eos(special: &SpecialIds) -> Option<TokenId> {
    special.eos.filter(|_| special.add_eos)
}

/// Tokens of a text, and the numbers of special tokens at its start and at its end.
fn single(tokenizer: &dyn Tokenizer, text: &str) -> (Vec<TokenId>, usize, usize) {
    let special = tokenizer.special();
    let mut tokens: Vec<_> = special.bos.filter(|_| special.add_bos).into_iter().collect();
    let start = tokens.len();
    encode(tokenizer, text, &mut tokens);
    tokens.extend(eos(special));
    (tokens, start, usize::from(eos(special).is_some()))
}

/// Tokens of a pair, the number of tokens before the document,
/// and the number of closing special tokens at the end.
fn pair(tokenizer: &dyn Tokenizer, query: &str, document: &str) -> (Vec<TokenId>, usize, usize) {
    let special = tokenizer.special();
    let (mut tokens, _, end) = single(tokenizer, query);
    tokens.extend(special.sep.filter(|_| special.add_sep));
    let start = tokens.len();
    encode(tokenizer, document, &mut tokens);
    tokens.extend(eos(special));
    (tokens, start, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{RoleIds, TokenType, TokenizerModel, Vocabulary};

    /// A vocabulary of single letters and special tokens: 0 unknown, 1 BOS, 2 EOS, 3 SEP, 4 `a`, 5 `b`.
    fn tokenizer(add_bos: bool, add_eos: bool, add_sep: bool) -> Arc<dyn Tokenizer> {
        let texts = ["<unk>", "<s>", "</s>", "<sep>", "a", "b"];
        let mut types = vec![TokenType::Control; 4];
        types[0] = TokenType::Unknown;
        types.extend([TokenType::Normal; 2]);
        let vocabulary = Vocabulary {
            model: TokenizerModel::Spm,
            tokens: texts.to_vec(),
            scores: vec![0.0; 6],
            types,
            ids: RoleIds { unk: Some(0), bos: Some(1), eos: Some(2), sep: Some(3), ..RoleIds::default() },
            add_bos: Some(add_bos),
            add_eos: Some(add_eos),
            add_sep: Some(add_sep),
            add_space_prefix: Some(false),
            ..Vocabulary::default()
        };
        vocabulary.build().unwrap()
    }

    #[test]
    fn special_tokens_are_where_the_model_wants_them() {
        let all = tokenizer(true, true, true);
        assert_eq!(single(&*all, "ab"), (vec![1, 4, 5, 2], 1, 1));
        assert_eq!(pair(&*all, "a", "b"), (vec![1, 4, 2, 3, 5, 2], 4, 1));
        let ends = tokenizer(false, true, false);
        assert_eq!(pair(&*ends, "a", "bb"), (vec![4, 2, 5, 5, 2], 2, 1));
        let none = tokenizer(false, false, false);
        assert_eq!(single(&*none, "ab"), (vec![4, 5], 0, 0));
        assert_eq!(pair(&*none, "a", "b"), (vec![4, 5], 1, 0));
        let parted = tokenizer(true, false, true);
        assert_eq!(pair(&*parted, "a", "b"), (vec![1, 4, 3, 5], 3, 0));
    }

    #[test]
    fn special_tokens_and_the_query_are_not_cut() {
        let cut = |mut tokens: Vec<TokenId>, limit, truncate, start, end| {
            cut(&mut tokens, limit, truncate, start, end).then_some(tokens)
        };
        let all = tokenizer(true, true, true);
        let (tokens, start, end) = single(&*all, "aabb");
        assert_eq!(cut(tokens.clone(), 4, Truncate::Start, start, end), Some(vec![1, 5, 5, 2]));
        assert_eq!(cut(tokens.clone(), 4, Truncate::End, start, end), Some(vec![1, 4, 4, 2]));
        assert_eq!(cut(tokens.clone(), 4, Truncate::Refuse, start, end), None);
        assert_eq!(cut(tokens, 2, Truncate::Start, start, end), None, "no token of the text would be left");
        let (tokens, start, end) = pair(&*all, "a", "abb");
        assert_eq!(cut(tokens.clone(), 6, Truncate::Start, start, end), Some(vec![1, 4, 2, 3, 5, 2]));
        assert_eq!(cut(tokens.clone(), 6, Truncate::End, start, end), Some(vec![1, 4, 2, 3, 4, 2]));
        assert_eq!(
            cut(tokens, 5, Truncate::Start, start, end),
            None,
            "no token of the document would be left"
        );
    }
}
