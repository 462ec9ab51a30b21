//! Compiles constraints for a model, with a cache.

use super::compiled::Compiled;
use super::environment::Environment;
use super::error::ConstraintError;
use super::{Constraint, limits};
use crate::tokenizer::Tokenizer;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Compiles constraints for a vocabulary, and caches them by source, in up to 64 MiB with least-recently-used
/// eviction.
///
/// Each engine has its own compiler. A separate one can check constraints before there are requests, and
/// match texts without a model.
///
/// ```
/// use exsa_core::constraint::{Compiler, Constraint};
/// use exsa_core::scripted::ByteTokenizer;
/// use std::sync::Arc;
///
/// let compiler = Compiler::new(Arc::new(ByteTokenizer::new()));
/// let mut state = compiler.compile(&Constraint::choice(["yes", "no"]))?.state()?;
/// for byte in "yes".bytes() {
///     state.accept(byte.into())?;
/// }
/// assert!(state.is_complete()?);
/// # Ok::<(), exsa_core::constraint::ConstraintError>(())
/// ```
pub struct Compiler {
    tokenizer: Arc<dyn Tokenizer>,
    env: OnceLock<Result<Arc<Environment>, ConstraintError>>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<Arc<str>, Entry>,
    /// Counter of uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    compiled: Arc<Compiled>,
    used: u64,
}

impl Compiler {
    /// A compiler for the vocabulary of `tokenizer`.
    pub fn new(tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self { tokenizer, env: OnceLock::new(), cache: Mutex::default() }
    }

    /// The compiled constraint. The first call prepares the vocabulary, which takes about a second for 128k
    /// tokens.
    ///
    /// # Errors
    ///
    /// The reason why the constraint is refused.
    pub fn compile(&self, constraint: &Constraint) -> Result<Arc<Compiled>, ConstraintError> {
        let env = self.env.get_or_init(|| Environment::new(self.tokenizer.clone()).map(Arc::new)).clone()?;
        // Oversized sources are refused when they are compiled, and never become keys.
        let key = format!("{constraint:?}");
        if let Some(compiled) = self.cache.lock().get(&key) {
            return Ok(compiled);
        }
        let compiled = Arc::new(Compiled::new(&env, constraint)?);
        self.cache.lock().insert(key.into(), compiled.clone());
        Ok(compiled)
    }
}

impl Cache {
    fn get(&mut self, key: &str) -> Option<Arc<Compiled>> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        if entry.compiled.is_broken() {
            self.entries.remove(key);
            return None;
        }
        entry.used = self.clock;
        Some(entry.compiled.clone())
    }

    fn insert(&mut self, key: Arc<str>, compiled: Arc<Compiled>) {
        self.entries.insert(key, Entry { compiled, used: self.clock });
        // Lexers grow with use, so the sizes of all entries are recomputed.
        let bytes = |(key, entry): (&Arc<str>, &Entry)| {
            (entry.used, entry.compiled.bytes() + 32 * key.len(), key.clone())
        };
        let mut sizes: Vec<_> = self.entries.iter().map(bytes).collect();
        sizes.sort_unstable();
        let mut total: usize = sizes.iter().fold(0, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        for (_, bytes, key) in sizes {
            if total <= limits::CACHE_BYTES_MAX {
                break;
            }
            total = total.saturating_sub(bytes);
            self.entries.remove(&key);
        }
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").field("env", &self.env).field("cache", &self.cache).finish_non_exhaustive()
    }
}
