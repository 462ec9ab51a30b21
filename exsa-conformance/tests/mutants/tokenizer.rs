//! The broken tokenizer.

use crate::mutant::Mutant;
use exsa_core::TokenId;
use exsa_core::tokenizer::{EncodeOptions, SpecialIds, Tokenizer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub struct MutantTokenizer {
    mutant: Mutant,
    inner: Arc<dyn Tokenizer>,
    special: SpecialIds,
    working: AtomicUsize,
}

impl MutantTokenizer {
    pub fn new(mutant: Mutant, inner: Arc<dyn Tokenizer>) -> Self {
        let mut special = inner.special().clone();
        if mutant == Mutant::EosDoesNotEnd {
            special.end_of_generation.clear();
        }
        Self { mutant, inner, special, working: AtomicUsize::new(0) }
    }
}

impl Tokenizer for MutantTokenizer {
    fn n_vocab(&self) -> usize {
        self.inner.n_vocab()
    }

    fn encode(&self, text: &str, options: &EncodeOptions<'_>, out: &mut Vec<TokenId>) {
        let start = out.len();
        let mut options = *options;
        match self.mutant {
            Mutant::BosBeforeText => out.extend(self.special.bos),
            Mutant::ControlFromText => options.parse_special = true,
            Mutant::NothingProtected => options.protected_offsets = &[],
            Mutant::NothingForLongTexts if text.len() > 10_000 => return,
            _ => {}
        }
        let busy = self.mutant == Mutant::OneEncodeAtATime && {
            let busy = self.working.fetch_add(1, Ordering::SeqCst) > 0;
            std::thread::sleep(Duration::from_millis(10));
            self.working.fetch_sub(1, Ordering::SeqCst);
            busy
        };
        self.inner.encode(text, &options, out);
        if busy {
            out.truncate(start);
        }
        if self.mutant == Mutant::ByteLost {
            let mut at = start;
            out.retain(|id| {
                at += 1;
                at <= start || *id != 0xc3
            });
        }
    }

    fn piece(&self, id: TokenId, out: &mut Vec<u8>) {
        match self.mutant {
            Mutant::PieceOutside if id as usize >= self.n_vocab() => out.push(b'?'),
            Mutant::ControlHasText if self.is_control(id) => {
                out.extend(self.token_text(id).unwrap_or_default().bytes());
            }
            _ => self.inner.piece(id, out),
        }
    }

    fn token_text(&self, id: TokenId) -> Option<&str> {
        self.inner.token_text(id)
    }

    fn is_control(&self, id: TokenId) -> bool {
        self.inner.is_control(id)
    }

    fn control_tokens(&self) -> Vec<(TokenId, String)> {
        self.inner.control_tokens()
    }

    fn leading_space(&self) -> bool {
        self.inner.leading_space()
    }

    fn special(&self) -> &SpecialIds {
        &self.special
    }
}
