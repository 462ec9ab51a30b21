//! Prompt prefixes, to place requests where their KV is cached.

use exsa_core::request::{Prompt, Request};
use hashbrown::HashMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hasher};

/// Bytes of a prompt per block.
const BLOCK: usize = 256;
/// Maximum bytes of a prompt that are hashed.
const PROMPT_MAX: usize = 64 << 10;
/// Keys remembered per member.
const KEYS_MAX: usize = 16 << 10;

/// Returns the keys of a request's prefixes: hashes of the prompt up to the end of each block, with the model
/// and the salt. Prompts with a common prefix have a common prefix of keys.
pub(crate) fn keys(request: &Request, hasher: &impl BuildHasher) -> Vec<u64> {
    let mut state = hasher.build_hasher();
    state.write(request.model.as_deref().unwrap_or_default().as_bytes());
    state.write_u8(0xff);
    state.write(request.cache_salt.as_deref().unwrap_or_default().as_bytes());
    let mut blocks = Blocks { state, filled: 0, total: 0, keys: Vec::new() };
    // The error only means that the prompt is longer than `PROMPT_MAX`.
    let _ = match &request.prompt {
        Prompt::Text(text) => blocks.write_str(text),
        Prompt::Tokens(tokens) => tokens.iter().try_for_each(|token| blocks.bytes(&token.to_le_bytes())),
        Prompt::Chat(messages) => {
            let tools = if request.chat.tools.is_empty() {
                Ok(())
            } else {
                write!(blocks, "{:?}", request.chat.tools)
            };
            tools.and_then(|()| messages.iter().try_for_each(|message| write!(blocks, "{message:?}")))
        }
        _ => Ok(()),
    };
    blocks.keys
}

struct Blocks<H> {
    state: H,
    filled: usize,
    total: usize,
    keys: Vec<u64>,
}

impl<H: Hasher> Blocks<H> {
    fn bytes(&mut self, mut bytes: &[u8]) -> fmt::Result {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.state.write(now);
            self.filled += now.len();
            self.total += now.len();
            if self.filled == BLOCK {
                self.keys.push(self.state.finish());
                self.filled = 0;
            }
            if self.total >= PROMPT_MAX {
                return Err(fmt::Error);
            }
            bytes = rest;
        }
        Ok(())
    }
}

impl<H: Hasher> Write for Blocks<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes())
    }
}

/// Prefixes that a member has computed recently.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    /// Last use of each key, counted in uses.
    used: HashMap<u64, u64>,
    uses: u64,
}

impl Affinity {
    /// Returns the number of leading keys that the member has computed.
    pub(crate) fn matched(&self, keys: &[u64]) -> usize {
        keys.iter().take_while(|key| self.used.contains_key(*key)).count()
    }

    /// Records that the member computes a prompt with these keys.
    pub(crate) fn insert(&mut self, keys: &[u64]) {
        self.uses += 1;
        for key in keys {
            self.used.insert(*key, self.uses);
        }
        if self.used.len() > KEYS_MAX {
            let mut times: Vec<_> = self.used.values().copied().collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.used.retain(|_, used| *used > median);
        }
    }

    /// Forgets all keys, since the member's cache is empty.
    pub(crate) fn clear(&mut self) {
        self.used.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::Message;
    use std::hash::RandomState;

    #[test]
    fn prompts_that_begin_alike_match_as_far_as_they_do() {
        let hasher = RandomState::new();
        let text = |tail: &str| Request::text("x".repeat(1000) + tail);
        let (a, b) = (keys(&text("a"), &hasher), keys(&text(&"b".repeat(300)), &hasher));
        assert_eq!((a.len(), b.len()), (3, 5));
        let mut affinity = Affinity::default();
        affinity.insert(&a);
        assert_eq!(affinity.matched(&b), 3);
        let salted = text("a").cache_salt("s");
        assert_eq!(affinity.matched(&keys(&salted, &hasher)), 0, "caches are not shared across salts");
        affinity.clear();
        assert_eq!(affinity.matched(&a), 0);
        let chat = |last: &str| {
            let messages = ["one ".repeat(200), last.to_owned()].map(Message::user);
            keys(&Request::chat(messages), &hasher)
        };
        affinity.insert(&chat("two"));
        assert!(affinity.matched(&chat("three")) >= 2);
        assert_eq!(keys(&Request::text("x".repeat(10 << 20)), &hasher).len(), PROMPT_MAX / BLOCK);
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_was_used_last() {
        let mut affinity = Affinity::default();
        for key in 0..4 * KEYS_MAX as u64 {
            affinity.insert(&[key]);
        }
        assert!(affinity.used.len() <= KEYS_MAX);
        assert_eq!(affinity.matched(&[4 * KEYS_MAX as u64 - 1]), 1);
        assert_eq!(affinity.matched(&[0]), 0);
    }
}
