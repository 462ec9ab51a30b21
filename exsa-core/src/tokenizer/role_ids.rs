//! Token ids with a role, as listed in a file.

use super::keys;
use super::model::TokenizerModel;
use super::tokens::{TokenType, Tokens};
use crate::token::TokenId;

/// Token ids with a role, as listed in a file. All are optional: an id outside the vocabulary, such as
/// 4294967295 or -1, which converters write for "none", is treated as absent, and the default of the
/// [`TokenizerModel`] is used instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleIds {
    /// Beginning of sequence.
    pub bos: Option<TokenId>,
    /// End of sequence.
    pub eos: Option<TokenId>,
    /// End of turn.
    pub eot: Option<TokenId>,
    /// End of message.
    pub eom: Option<TokenId>,
    /// Unknown text.
    pub unk: Option<TokenId>,
    /// Separator.
    pub sep: Option<TokenId>,
    /// Class of a text, in encoders.
    pub cls: Option<TokenId>,
    /// Masked text, in encoders.
    pub mask: Option<TokenId>,
    /// Padding.
    pub pad: Option<TokenId>,
    /// Text before a gap, in code models.
    pub fim_pre: Option<TokenId>,
    /// Text after a gap, in code models.
    pub fim_suf: Option<TokenId>,
    /// The gap itself, in code models.
    pub fim_mid: Option<TokenId>,
    /// Padding of code models.
    pub fim_pad: Option<TokenId>,
    /// Start of a repository in code models.
    pub fim_rep: Option<TokenId>,
    /// Start of a file in code models.
    pub fim_sep: Option<TokenId>,
}

/// A role: its name, its key in files, and its place in [`RoleIds`].
type Role = (&'static str, &'static str, fn(&mut RoleIds) -> &mut Option<TokenId>);

/// All roles.
const ROLES: [Role; 15] = [
    ("bos", keys::BOS, |ids| &mut ids.bos),
    ("eos", keys::EOS, |ids| &mut ids.eos),
    ("eot", keys::EOT, |ids| &mut ids.eot),
    ("eom", keys::EOM, |ids| &mut ids.eom),
    ("unk", keys::UNK, |ids| &mut ids.unk),
    ("sep", keys::SEP, |ids| &mut ids.sep),
    ("cls", keys::CLS, |ids| &mut ids.cls),
    ("mask", keys::MASK, |ids| &mut ids.mask),
    ("pad", keys::PAD, |ids| &mut ids.pad),
    ("fim_pre", keys::FIM_PRE, |ids| &mut ids.fim_pre),
    ("fim_suf", keys::FIM_SUF, |ids| &mut ids.fim_suf),
    ("fim_mid", keys::FIM_MID, |ids| &mut ids.fim_mid),
    ("fim_pad", keys::FIM_PAD, |ids| &mut ids.fim_pad),
    ("fim_rep", keys::FIM_REP, |ids| &mut ids.fim_rep),
    ("fim_sep", keys::FIM_SEP, |ids| &mut ids.fim_sep),
];

impl RoleIds {
    /// Fills every role from the file's key for it.
    pub(super) fn read<E>(id: impl Fn(&'static str) -> Result<Option<TokenId>, E>) -> Result<Self, E> {
        let mut ids = Self::default();
        for (_, key, slot) in ROLES {
            *slot(&mut ids) = id(key)?;
        }
        Ok(ids)
    }

    /// The roles that have a token: `bos`, `eos`, `pad` and so on, with the token's id.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, TokenId)> {
        let mut ids = self.clone();
        ROLES.into_iter().filter_map(move |(name, _, slot)| slot(&mut ids).map(|id| (name, id)))
    }

    /// The same without the ids that a vocabulary of `n_vocab` tokens does not have.
    pub(super) fn within(mut self, n_vocab: usize) -> Self {
        for (_, _, slot) in ROLES {
            let id = slot(&mut self);
            *id = id.filter(|id| (*id as usize) < n_vocab);
        }
        self
    }

    /// Fills in what the file leaves out with what is usual, where the vocabulary has such a token.
    pub(super) fn or_default(mut self, model: TokenizerModel, default_bos: bool, tokens: &Tokens) -> Self {
        let id = |id: TokenId| tokens.kind(id).map(|_| id);
        match model {
            TokenizerModel::Spm => {
                self.bos = self.bos.or(id(1));
                self.eos = self.eos.or(id(2));
                self.unk = self.unk.or(id(0));
            }
            TokenizerModel::Bpe | TokenizerModel::Whitespace | TokenizerModel::HybridDna => {
                // The token of the first Falcon; elsewhere it is a word.
                let both = id(11).filter(|id| tokens.kind(*id).is_some_and(TokenType::is_hidden));
                self.bos = self.bos.or(both.filter(|_| default_bos));
                self.eos = self.eos.or(both);
            }
            TokenizerModel::Wpm => {
                self.bos = self.bos.or(id(101));
                self.unk = self.unk.or(id(100));
                self.sep = self.sep.or(id(102));
                self.pad = self.pad.or(id(0));
            }
            TokenizerModel::Ugm => {
                self.eos = self.eos.or(id(1));
                self.unk = self.unk.or(id(2));
                self.pad = self.pad.or(id(0));
            }
            TokenizerModel::Plamo2 => {
                self.bos = self.bos.or(id(1));
                self.eos = self.eos.or(id(2));
                self.unk = self.unk.or(id(0));
                self.pad = self.pad.or(id(3));
            }
            TokenizerModel::Rwkv | TokenizerModel::Gemma4 => {}
        }
        self
    }
}
