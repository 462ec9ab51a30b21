//! Which tokens have a role: BOS, EOS, the end of an answer.

use super::SpecialIds;
use super::error::TokenizerError;
use super::keys;
use super::model::TokenizerModel;
use super::role_ids::RoleIds;
use super::text_index::TextIndex;
use super::tokens::{TokenType, Tokens};
use crate::token::TokenId;

/// Texts of end-of-generation tokens of published models. Files do not mark them otherwise; many only specify
/// EOS, and some declare these tokens with a type that would make them visible in text.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[e~[",
];

/// Ends an answer too, but is also a closing tag of HTML: in some vocabularies it is a normal token, and then
/// text.
const END_OR_TAG: &str = "</s>";

/// Tokens of code models that structure a file or a repository: padding, start of a repository, start of a
/// file. Text after one of them is no longer part of the answer.
const FILE_ENDS: [&[&str]; 3] = [
    &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    &["<|file_sep|>"],
];

/// Tokens between which code models fill in text: before the text ahead of a gap, before the text behind it,
/// and at the gap. They never show in text.
const FILL_IN_MARKS: [&[&str]; 3] = [
    &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
        "<PRE>",
        "\u{2581}<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ],
    &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
        "<SUF>",
        "\u{2581}<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ],
    &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<\u{ff5c}fim\u{2581}end\u{ff5c}>",
        "<MID>",
        "\u{2581}<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ],
];

/// Pairs of sets of tokens with which `<|end|>` ends a message, of which an answer has several, and not the
/// answer.
const MANY_MESSAGES: &[[&[&str]; 2]] =
    &[[&["<|return|>"], &["<|call|>", "<|calls|>"]], [&["<|flush|>"], &["<|call|>", "<|calls|>"]]];
const END_OF_MESSAGE: &str = "<|end|>";

/// The tokens that a file requires to be added to prompts.
pub(super) struct AddedTokens {
    pub(super) bos: Option<bool>,
    pub(super) eos: Option<bool>,
    pub(super) sep: Option<bool>,
    /// Whether BOS is added where the file does not say.
    pub(super) bos_default: bool,
    /// Whether EOS is added where the file does not say.
    pub(super) eos_default: bool,
}

/// Finds the tokens with a role beside `ids`, all within the vocabulary. Those that never show in text become
/// control tokens.
pub(super) fn resolve(
    model: TokenizerModel,
    mut ids: RoleIds,
    asked: &AddedTokens,
    tokens: &mut Tokens,
) -> Result<SpecialIds, TokenizerError> {
    let known = KnownByText::find(tokens, &ids);
    // Such a token never appears in text, whatever type the file declares.
    for id in known.ends.iter().chain(known.marks.iter().flatten()) {
        tokens.set_kind(*id, TokenType::Control);
    }
    let [fim_pre, fim_suf, fim_mid] = known.marks;
    let [fim_pad, fim_rep, fim_sep] = known.file_ends;
    ids.fim_pre = ids.fim_pre.or(fim_pre);
    ids.fim_suf = ids.fim_suf.or(fim_suf);
    ids.fim_mid = ids.fim_mid.or(fim_mid);
    ids.fim_pad = ids.fim_pad.or(fim_pad);
    ids.fim_rep = ids.fim_rep.or(fim_rep);
    ids.fim_sep = ids.fim_sep.or(fim_sep);

    let add_bos = add(asked.bos, asked.bos_default, ids.bos, keys::BOS)?;
    let (eos, add_eos) = match model {
        // BERT ends a text with its separator, whatever it calls EOS.
        TokenizerModel::Wpm => {
            let eos = ids.sep.or(ids.eos);
            (eos, add(asked.sep, true, eos, keys::SEP)?)
        }
        _ => (ids.eos, add(asked.eos, asked.eos_default, ids.eos, keys::EOS)?),
    };
    let given = [ids.eot, ids.eom, ids.fim_pad, ids.fim_rep, ids.fim_sep];
    let mut ends: Vec<TokenId> = given.into_iter().flatten().chain(known.ends).collect();
    ends.retain(|id| Some(*id) != known.end_of_message);
    ends.extend(eos.into_iter().chain(ids.eos));
    ends.sort_unstable();
    ends.dedup();
    let (bos, unk, sep, pad) = (ids.bos, ids.unk, ids.sep, ids.pad);
    // The separator of BERT is the EOS above.
    let add_sep = sep.is_some() && model != TokenizerModel::Wpm && asked.sep == Some(true);
    let roles = ids;
    Ok(SpecialIds { bos, eos, unk, sep, pad, roles, end_of_generation: ends, add_bos, add_eos, add_sep })
}

/// Tokens whose texts tell what they are for.
struct KnownByText {
    /// End an answer.
    ends: Vec<TokenId>,
    /// Structure a file or a repository, in the order of [`FILE_ENDS`]; only those that the file gives no id
    /// for.
    file_ends: [Option<TokenId>; 3],
    /// Stand between parts of a text, in the order of [`FILL_IN_MARKS`].
    marks: [Option<TokenId>; 3],
    /// Ends a message and not an answer.
    end_of_message: Option<TokenId>,
}

impl KnownByText {
    /// Looks for texts, but not for those of roles that `given` names a token for.
    fn find(tokens: &Tokens, given: &RoleIds) -> Self {
        let index = TextIndex::new(tokens, |_| true);
        let find = |text: &&str| index.get(tokens, text);
        let first = |texts: &&[&str]| texts.iter().find_map(find);

        let has = |texts: &&[&str]| first(texts).is_some();
        let many_messages = MANY_MESSAGES.iter().any(|sets| sets.iter().all(has));
        let end_of_message = find(&END_OF_MESSAGE).filter(|_| many_messages);

        let tag = find(&END_OR_TAG).filter(|id| tokens.kind(*id) != Some(TokenType::Normal));
        let given = [given.fim_pad, given.fim_rep, given.fim_sep];
        let mut file_ends = FILE_ENDS.map(|texts| first(&texts));
        for (end, given) in file_ends.iter_mut().zip(given) {
            *end = end.filter(|_| given.is_none());
        }
        let mut ends: Vec<TokenId> =
            ENDS.iter().filter_map(find).chain(tag).chain(file_ends.into_iter().flatten()).collect();
        ends.retain(|id| Some(*id) != end_of_message);
        Self { ends, file_ends, marks: FILL_IN_MARKS.map(|texts| first(&texts)), end_of_message }
    }
}

/// Whether to add a token: as the file says, or by `default` if there is such a token.
fn add(
    asked: Option<bool>,
    default: bool,
    id: Option<TokenId>,
    key: &'static str,
) -> Result<bool, TokenizerError> {
    match (asked, id) {
        (Some(true), None) => {
            Err(TokenizerError::Missing { key, why: "prompts are to have this token added" })
        }
        (asked, id) => Ok(asked.unwrap_or(default && id.is_some())),
    }
}
