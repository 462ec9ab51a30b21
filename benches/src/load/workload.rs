//! The requests of a round.

use crate::error::BenchError;
use crate::load::options::LoadGenOptions;
use crate::load::user::{Arrival, User};
use crate::prompts::Prompts;
use crate::random::Random;
use crate::text::prose;
use exsa_core::TokenId;
use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;
use exsa_core::scripted::ScriptedModel;
use exsa_core::tokenizer::{self, EncodeOptions, Tokenizer};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// Tokens of prompt and answer that a warm-up request has at most.
const WARMUP_TOKENS: (usize, usize) = (64, 4);

/// Bytes of prose that hold a token, with plenty to spare.
const BYTES_PER_TOKEN: usize = 16;

/// Form in which a prompt is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Token ids.
    Tokens(Vec<TokenId>),
    /// Text, which the target tokenizes.
    Text(String),
}

/// One request to come.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Index of its user.
    pub user: usize,
    /// The user's name.
    pub user_name: String,
    /// When it is sent, from the start of the round.
    pub at: Duration,
    /// The prompt.
    pub prompt: Prompt,
    /// Tokens of the answer.
    pub generate: usize,
}

/// Draws rounds.
pub struct Workload {
    users: Vec<User>,
    tokenizer: Arc<dyn Tokenizer>,
    n_vocab: usize,
    text: bool,
    seed: u64,
}

impl Workload {
    /// For the model that `options` name; a small built-in vocabulary without one.
    pub fn new(options: &LoadGenOptions) -> Result<Self, BenchError> {
        let (tokenizer, n_vocab) = match &options.model {
            None => {
                let model = ScriptedModel::ngram(1).shared();
                (model.tokenizer(), model.info().n_vocab)
            }
            Some(path) => {
                let failed = |source| BenchError::Load { what: path.display().to_string(), source };
                let io = |source| failed(LoadError::Io { path: path.clone(), source });
                let mut file = File::open(path).map_err(io)?;
                let gguf = Gguf::read(&mut file).map_err(|error| failed(error.into()))?;
                let tokenizer = tokenizer::load(gguf.metadata()).map_err(|error| failed(error.into()))?;
                let n_vocab = tokenizer.n_vocab();
                (tokenizer, n_vocab)
            }
        };
        let users = options.users().map_err(BenchError::User)?;
        Ok(Self { users, tokenizer, n_vocab, text: options.text, seed: options.seed })
    }

    /// The requests of this round in the order of their arrival; others in every round.
    pub fn round(&self, round: u64) -> Result<Vec<Planned>, BenchError> {
        let seed = Random::nth(self.seed, round).next();
        let mut random = Random::new(seed);
        let longest = self.users.iter().map(|user| user.shared).max().unwrap_or_default();
        let shared = self.draw(longest, seed, 0)?;
        let mut planned = Vec::new();
        for (index, user) in self.users.iter().enumerate() {
            let mut at = user.start;
            for i in 0..user.requests {
                at += match user.arrival {
                    Arrival::Every(time) if i > 0 => time,
                    Arrival::Poisson(rate) => Duration::from_secs_f64(exponential(&mut random) / rate),
                    _ => Duration::ZERO,
                };
                let own = user.own.0 + random.below(user.own.1 - user.own.0 + 1);
                let own = self.draw(own, seed, planned.len() as u64 + 1)?;
                planned.push(Planned {
                    user: index,
                    user_name: user.name.clone(),
                    at,
                    prompt: join(&shared, user.shared, own),
                    generate: user.generate,
                });
            }
        }
        planned.sort_by_key(|request| request.at);
        Ok(planned)
    }

    /// The same in short, all at once.
    pub fn warmup(&self, round: u64) -> Result<Vec<Planned>, BenchError> {
        let mut planned = self.round(round)?;
        for request in &mut planned {
            request.at = Duration::ZERO;
            request.generate = request.generate.min(WARMUP_TOKENS.1);
            match &mut request.prompt {
                Prompt::Tokens(tokens) => tokens.truncate(WARMUP_TOKENS.0),
                Prompt::Text(text) => *text = text.chars().take(WARMUP_TOKENS.0).collect(),
            }
        }
        Ok(planned)
    }

    fn draw(&self, tokens: usize, seed: u64, index: u64) -> Result<Prompt, BenchError> {
        if !self.text {
            let mut prompts = Prompts::of(&*self.tokenizer, self.n_vocab, seed)?.draw(&[tokens], index);
            return Ok(Prompt::Tokens(prompts.pop().unwrap_or_default()));
        }
        let text = prose(tokens * BYTES_PER_TOKEN, Random::nth(seed, index).next());
        let (mut ids, mut bytes) = (Vec::new(), Vec::new());
        self.tokenizer.encode(&text, &EncodeOptions::default(), &mut ids);
        ids.iter().take(tokens).for_each(|id| self.tokenizer.piece(*id, &mut bytes));
        Ok(Prompt::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// The first `len` tokens of `shared`, then `own`. Text has no prefix by tokens: it is taken whole where any
/// is wanted.
fn join(shared: &Prompt, len: usize, own: Prompt) -> Prompt {
    match (shared, own) {
        (Prompt::Tokens(shared), Prompt::Tokens(own)) => Prompt::Tokens([&shared[..len], &own].concat()),
        (Prompt::Text(shared), Prompt::Text(own)) if len > 0 => Prompt::Text(format!("{shared} {own}")),
        (_, own) => own,
    }
}

/// A time between events that come once per unit of time on average.
fn exponential(random: &mut Random) -> f64 {
    let uniform = ((random.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    -uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn workload(line: &str) -> Workload {
        let words = ["load", "--engine", "scripted"].into_iter().chain(line.split_whitespace());
        Workload::new(&LoadGenOptions::try_parse_from(words).unwrap()).unwrap()
    }

    fn tokens(request: &Planned) -> &[TokenId] {
        match &request.prompt {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text(text) => panic!("{text}"),
        }
    }

    #[test]
    fn all_share_the_prefix_and_nothing_else() {
        let round = workload("--requests 4 --shared 30 --own 9").round(0).unwrap();
        assert_eq!(round.len(), 4);
        assert!(round.iter().all(|request| tokens(request).len() == 39));
        assert!(round.iter().all(|request| tokens(request)[..30] == tokens(&round[0])[..30]));
        assert_ne!(tokens(&round[0])[30..], tokens(&round[1])[30..]);
    }

    #[test]
    fn rounds_differ_and_repeat_by_seed() {
        let (a, b) = (workload("--requests 3 --own 5-50"), workload("--requests 3 --own 5-50 --seed 9"));
        assert_eq!(a.round(1).unwrap(), a.round(1).unwrap());
        assert_ne!(a.round(1).unwrap(), a.round(2).unwrap());
        assert_ne!(a.round(1).unwrap(), b.round(1).unwrap());
        assert!(a.round(1).unwrap().iter().all(|request| (5..=50).contains(&tokens(request).len())));
    }

    #[test]
    fn users_come_when_they_say() {
        let line = "--user heavy:requests=3 --user light:requests=3:arrival=every/2:start=1:generate=5";
        let round = workload(line).round(0).unwrap();
        let seen: Vec<_> = round.iter().map(|r| (r.user_name.as_str(), r.at.as_secs(), r.generate)).collect();
        let heavy = ("heavy", 0, 64);
        assert_eq!(seen, [heavy, heavy, heavy, ("light", 1, 5), ("light", 3, 5), ("light", 5, 5)]);
    }

    #[test]
    fn random_arrivals_keep_their_rate() {
        let round = workload("--requests 2000 --own 1 --arrival poisson:50").round(0).unwrap();
        let seconds = round.last().unwrap().at.as_secs_f64();
        assert!((35.0..45.0).contains(&seconds), "{seconds}");
        assert!(round.is_sorted_by_key(|request| request.at));
    }

    #[test]
    fn texts_have_about_their_tokens() {
        let round = workload("--requests 2 --own 40 --shared 10 --text").round(0).unwrap();
        let Prompt::Text(text) = &round[0].prompt else { panic!() };
        // The built-in vocabulary has a token a byte.
        assert_eq!(text.len(), 51);
        assert_ne!(round[0].prompt, round[1].prompt);
    }
}
