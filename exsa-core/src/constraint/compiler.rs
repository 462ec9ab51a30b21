//! Compiles constraints for a model, and keeps the last ones.

use super::compiled::Compiled;
use super::environment::Environment;
use super::error::ConstraintError;
use super::{Constraint, limits};
use crate::tokenizer::Tokenizer;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

/// Compiles constraints on the thread of the caller, and caches them by their source, least recently used first
/// to go.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    env: OnceLock<Result<Arc<Environment>, ConstraintError>>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<Arc<str>, Entry>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    compiled: Arc<Compiled>,
    used: u64,
}

impl Compiler {
    /// The compiled constraint, for the vocabulary of `tokenizer`, which is the same for every call.
    pub(crate) fn compile(
        &self,
        constraint: &Constraint,
        tokenizer: &Arc<dyn Tokenizer>,
    ) -> Result<Arc<Compiled>, ConstraintError> {
        let env = self.env.get_or_init(|| Environment::new(tokenizer.clone()).map(Arc::new)).clone()?;
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
        // Lexers grow with use, so all are measured again.
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
