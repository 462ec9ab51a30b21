//! A compiled constraint: the grammar's initial state, and where in an answer it starts.

use super::environment::{Environment, Unit, unit};
use super::error::ConstraintError;
use super::guard::guard;
use super::limits;
use super::matcher::{Matcher, Next};
use super::search::Patterns;
use super::state::ConstraintState;
use super::text_masks::TextMasks;
use super::trigger::{GrammarStart, Trigger};
use super::{Constraint, Grammar, source};
use crate::token::TokenId;
use hashbrown::HashMap;
use llguidance::Logger;
use llguidance::api::GrammarInit;
use llguidance::earley::Parser;
use llguidance::earley::perf::ParserPerfCounters;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// A compiled constraint, shared by all answers that use it.
pub struct Compiled {
    pub(super) env: Arc<Environment>,
    /// The grammar before any text. Copies share the lexer, so that its states are computed once.
    template: Mutex<Parser>,
    masks: Arc<Mutex<TextMasks>>,
    pub(super) reasoning_end: Option<Patterns>,
    pub(super) triggers: Option<Triggers>,
    /// Whether text after the grammar's end is unconstrained again, up to the next trigger.
    pub(super) repeats: bool,
    /// Whether the grammar applies from the answer's start although there are triggers.
    pub(super) starts_active: bool,
    /// Forbidden tokens in free text, by the end of the text before them.
    forbidden: Mutex<Forbidden>,
}

/// Tokens by the units before them.
type Forbidden = HashMap<Box<[Unit]>, Arc<[TokenId]>>;

/// Start of the grammar within free text.
pub(super) struct Triggers {
    pub(super) texts: Patterns,
    /// Token triggers, sorted.
    pub(super) tokens: Vec<TokenId>,
    pub(super) start: GrammarStart,
}

impl Compiled {
    /// The initial state of an answer that ends with one of the vocabulary's end-of-generation tokens.
    ///
    /// # Errors
    ///
    /// The vocabulary has no end-of-generation token.
    pub fn state(self: &Arc<Self>) -> Result<ConstraintState, ConstraintError> {
        let special = self.env.tokenizer.special();
        self.state_with(&special.end_of_generation, &[])
    }

    /// The initial state of an answer that ends with one of these tokens; both lists are sorted.
    pub(crate) fn state_with(
        self: &Arc<Self>,
        end_of_generation: &[TokenId],
        stop_tokens: &[TokenId],
    ) -> Result<ConstraintState, ConstraintError> {
        let special = self.env.tokenizer.special();
        let ends = |id: &TokenId| end_of_generation.binary_search(id).is_ok();
        let end = special.roles.eot.filter(ends).or(special.eos.filter(ends));
        let end = end.or_else(|| end_of_generation.iter().chain(stop_tokens).next().copied());
        let Some(end) = end else {
            let why =
                "ignore_eos, or a model without an end-of-generation token: no token could end the answer";
            return Err(ConstraintError::Conflict(why));
        };
        let mut ends: Vec<TokenId> = end_of_generation.iter().chain(stop_tokens).copied().collect();
        ends.sort_unstable();
        ConstraintState::new(self.clone(), ends.into(), end)
    }

    /// Compiles a constraint on a separate thread with a large stack.
    pub(super) fn new(env: &Arc<Environment>, constraint: &Constraint) -> Result<Self, ConstraintError> {
        std::thread::scope(|scope| {
            let compile = || Self::compile(env, constraint);
            let thread = std::thread::Builder::new().name("exsa-grammar".into());
            let thread = thread.stack_size(limits::COMPILE_STACK_BYTES).spawn_scoped(scope, compile);
            let thread = thread.map_err(|error| ConstraintError::Internal(format!("no thread: {error}")))?;
            thread.join().unwrap_or_else(|_| Err(ConstraintError::Internal("it panicked".to_owned())))
        })
    }

    fn compile(env: &Arc<Environment>, constraint: &Constraint) -> Result<Self, ConstraintError> {
        let grammar = source::kind(&constraint.grammar);
        let translated = source::translate(env, constraint)?;
        let (limits, token_env) = (limits::parser_limits(), env.token_env.clone());
        let parser = guard(|| {
            let init = GrammarInit::Serialized(translated);
            let lexemes = env.text_slicer.extra_lexemes();
            let compiled =
                init.to_cgrammar(Some(token_env.clone()), &mut Logger::new(0, 0), limits.clone(), lexemes)?;
            Parser::new(token_env, compiled, limits, Arc::new(ParserPerfCounters::default()))
        })
        .map_err(|error| match error {
            ConstraintError::Internal(problem) => ConstraintError::Invalid { grammar, problem },
            error => error,
        })?
        .map_err(|error| problem(grammar, &error.to_string()))?;
        if !parser.grammar().lexer_spec().can_rollback() {
            let problem = "the attributes stop and max_tokens are not supported; use suffix".to_owned();
            return Err(ConstraintError::Invalid { grammar, problem });
        }
        let (repeats, starts_active, triggers) = Self::triggers(env, constraint)?;
        let reasoning_end = constraint.reasoning_end.as_deref();
        let reasoning_end = reasoning_end.map(|end| patterns(env, [end], "reasoning end")).transpose()?;
        let template = Mutex::new(parser);
        let (env, masks, forbidden) = (env.clone(), Arc::default(), Mutex::default());
        let compiled =
            Self { env, template, masks, reasoning_end, triggers, repeats, starts_active, forbidden };
        compiled.check_triggers(grammar)?;
        compiled.check_start(grammar)?;
        Ok(compiled)
    }

    /// Whether the grammar repeats and starts active, and its triggers.
    fn triggers(
        env: &Environment,
        constraint: &Constraint,
    ) -> Result<(bool, bool, Option<Triggers>), ConstraintError> {
        let none = || Patterns::new(Vec::new());
        let invalid =
            |problem: &str| Err(ConstraintError::Invalid { grammar: "trigger", problem: problem.to_owned() });
        let start = constraint.grammar_start;
        match (&constraint.grammar, &constraint.trigger) {
            (Grammar::StructuralTags(_), Some(_)) => invalid("structural tags have their own triggers"),
            (Grammar::StructuralTags(tags), None) => {
                let texts = patterns(env, tags.triggers.iter().map(String::as_str), "trigger")?;
                let start = GrammarStart::TriggerStart;
                let triggers = Triggers { texts, tokens: Vec::new(), start };
                Ok((!tags.stop_after_first, tags.at_least_one, Some(triggers)))
            }
            (_, None) => Ok((false, true, None)),
            (_, Some(Trigger::Text(texts))) if texts.is_empty() => invalid("there is none"),
            (_, Some(Trigger::Text(texts))) => {
                let texts = patterns(env, texts.iter().map(String::as_str), "trigger")?;
                Ok((false, false, Some(Triggers { texts, tokens: Vec::new(), start })))
            }
            (_, Some(Trigger::Token(tokens))) if tokens.is_empty() => invalid("there is none"),
            (_, Some(Trigger::Token(tokens))) => {
                let n_vocab = env.tokenizer.n_vocab();
                if let Some(token) = tokens.iter().find(|token| **token as usize >= n_vocab) {
                    return invalid(&format!("token {token} is outside the vocabulary of {n_vocab}"));
                }
                let mut tokens = tokens.clone();
                tokens.sort_unstable();
                Ok((false, false, Some(Triggers { texts: none(), tokens, start })))
            }
        }
    }

    /// Refuses a grammar that matches no text. This also computes the first mask, which is the most expensive
    /// one.
    fn check_start(&self, grammar: &'static str) -> Result<(), ConstraintError> {
        let mut matcher = self.matcher(None);
        if matches!(matcher.next()?, Next::Open { complete: false }) && matcher.mask()?.is_zero() {
            let problem = "it matches no text".to_owned();
            return Err(ConstraintError::Invalid { grammar, problem });
        }
        Ok(())
    }

    /// Refuses triggers with which the grammar does not start although it describes their text.
    fn check_triggers(&self, grammar: &'static str) -> Result<(), ConstraintError> {
        let Some(triggers) = self.triggers.as_ref().filter(|t| t.start == GrammarStart::TriggerStart) else {
            return Ok(());
        };
        let mut allowed = true;
        for text in triggers.texts.iter() {
            allowed &= self.matcher(None).feed(text)?;
        }
        for token in &triggers.tokens {
            allowed &= self.matcher(None).push(*token)?;
        }
        if allowed {
            return Ok(());
        }
        let problem = "it does not start with the text of each trigger".to_owned();
        Err(ConstraintError::Invalid { grammar, problem })
    }

    /// The matcher of the grammar before any text, after the token `before`.
    pub(super) fn matcher(&self, before: Option<TokenId>) -> Matcher {
        Matcher::new(self.env.clone(), self.template.lock().clone(), self.masks.clone(), before)
    }

    /// Tokens that may not follow free text, because they contain the last bytes of a text of `patterns` and
    /// continue in a way that the grammar does not allow. `tail` is the end of the text before, trimmed by
    /// `patterns`.
    pub(super) fn forbidden(
        &self,
        patterns: &Patterns,
        start: GrammarStart,
        tail: &[Unit],
    ) -> Result<Arc<[TokenId]>, ConstraintError> {
        if let Some(tokens) = self.forbidden.lock().get(tail) {
            return Ok(tokens.clone());
        }
        let mut tokens = Vec::new();
        if tail.is_empty() {
            self.forbidden_inside(patterns, start, &mut tokens)?;
        } else {
            tokens.extend_from_slice(&self.forbidden(patterns, start, &[])?);
        }
        for pattern in patterns.iter() {
            for len in 1..pattern.len() {
                let rest: Option<Vec<u8>> = pattern[len..].iter().map(|one| unit(*one).ok()).collect();
                if let Some(rest) = rest.filter(|_| tail.ends_with(&pattern[..len])) {
                    self.forbidden_at(pattern, start, &rest, &mut tokens)?;
                }
            }
        }
        tokens.sort_unstable();
        tokens.dedup();
        let tokens: Arc<[TokenId]> = tokens.into();
        self.forbidden.lock().insert(tail.into(), tokens.clone());
        Ok(tokens)
    }

    /// Adds the tokens that contain a whole text.
    fn forbidden_inside(
        &self,
        patterns: &Patterns,
        start: GrammarStart,
        tokens: &mut Vec<TokenId>,
    ) -> Result<(), ConstraintError> {
        let mut units = Vec::new();
        for id in 0..self.env.tokenizer.n_vocab() as TokenId {
            units.clear();
            self.env.units_of_token(id, &mut units);
            if let Some((begin, end)) = patterns.find(&units)
                && end < units.len()
            {
                let from = if start == GrammarStart::TriggerStart { begin } else { end };
                if !self.matcher(None).feed(&units[from..])? {
                    tokens.push(id);
                }
            }
        }
        Ok(())
    }

    /// Adds the tokens that contain `rest`, the end of `pattern`, and more.
    fn forbidden_at(
        &self,
        pattern: &[Unit],
        start: GrammarStart,
        rest: &[u8],
        tokens: &mut Vec<TokenId>,
    ) -> Result<(), ConstraintError> {
        let mut matcher = self.matcher(None);
        if start == GrammarStart::TriggerStart {
            matcher.feed(pattern)?;
        }
        let allowed = matcher.extensions(rest)?;
        let trie = self.env.trie();
        let Some(node) = trie.child_at_bytes(trie.root(), rest) else { return Ok(()) };
        let mut nodes: Vec<_> = trie.node_children(node).collect();
        while let Some(node) = nodes.pop() {
            tokens.extend(node.token_id().filter(|id| !allowed.is_allowed(*id)));
            nodes.extend(trie.node_children(node));
        }
        Ok(())
    }

    /// Estimated bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let lexer = guard(|| self.template.lock().lexer_stats().num_bytes).unwrap_or(usize::MAX);
        lexer.saturating_add(self.masks.lock().bytes())
    }

    /// Whether the lexer is unusable, because a limit was exceeded or llguidance panicked.
    pub(super) fn is_broken(&self) -> bool {
        guard(|| self.template.lock().get_error().is_some()).unwrap_or(true)
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

fn patterns<'a>(
    env: &Environment,
    texts: impl IntoIterator<Item = &'a str>,
    grammar: &'static str,
) -> Result<Patterns, ConstraintError> {
    let units = |text: &str| {
        if text.is_empty() {
            let problem = "its text is empty".to_owned();
            return Err(ConstraintError::Invalid { grammar, problem });
        }
        if text.len() > limits::TRIGGER_BYTES_MAX {
            let max = limits::TRIGGER_BYTES_MAX as u64;
            return Err(ConstraintError::Limit { grammar, limit: "bytes", max });
        }
        Ok(env.units_of_text(text).into_boxed_slice())
    };
    let texts: Vec<_> = texts.into_iter().map(units).collect::<Result<_, _>>()?;
    if texts.len() > limits::TAGS_MAX {
        return Err(ConstraintError::Limit { grammar, limit: "triggers", max: limits::TAGS_MAX as u64 });
    }
    Ok(Patterns::new(texts))
}

/// Maps limits of llguidance, recognized by parts of its messages, to names and values.
fn problem(grammar: &'static str, message: &str) -> ConstraintError {
    let limits = limits::parser_limits();
    let known = [
        ("grammar size (number of symbols) too big", "grammar symbols", limits.max_grammar_size as u64),
        ("initial lexer configuration (grammar) too big", "units of lexer fuel", limits.initial_lexer_fuel),
        ("fuel exhausted", "units of lexer fuel", limits.initial_lexer_fuel),
        ("too many expressions constructed", "units of lexer fuel", limits.initial_lexer_fuel),
        ("too many states", "lexer states", limits.max_lexer_states as u64),
        ("schema too large", "schemas", 50_000),
        ("intersection stack level exceeded", "levels of schemas in allOf", 128),
        ("too deeply nested", "levels of nesting", 30),
    ];
    for (part, limit, max) in known {
        if message.contains(part) {
            return ConstraintError::Limit { grammar, limit, max };
        }
    }
    let problem = message.trim_end().trim_end_matches("<non-verbose/>").trim_end().to_owned();
    ConstraintError::Invalid { grammar, problem }
}
