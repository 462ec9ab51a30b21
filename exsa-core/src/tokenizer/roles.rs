//! Which tokens have a role: BOS, EOS, the end of an answer.

use super::SpecialIds;
use super::error::TokenizerError;
use super::keys;
use super::text_index::TextIndex;
use super::tokens::{TokenType, Tokens};
use super::vocabulary::{RoleIds, TokenizerModel, Vocabulary};
use crate::token::TokenId;

/// Texts of tokens that end an answer in models in use. Files do not mark them otherwise; many give no more than
/// EOS, and some give these tokens a type that would show them in text.
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

/// Tokens of code models that structure a file or a repository, by key: what a model writes after one of them is
/// no longer the answer. The first that the vocabulary has is taken.
const FILE_ENDS: &[(fn(&RoleIds) -> Option<u32>, &[&str])] = &[
    (|ids| ids.fim_pad, &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (|ids| ids.fim_rep, &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    (|ids| ids.fim_sep, &["<|file_sep|>"]),
];

/// Tokens between which code models fill in text. They never show in it.
const FILL_IN_MARKS: &[&[&str]] = &[
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

/// Two sets of tokens with which `<|end|>` ends a message, of which an answer has several, and not the answer.
const MANY_MESSAGES: &[[&[&str]; 2]] =
    &[[&["<|return|>"], &["<|call|>", "<|calls|>"]], [&["<|flush|>"], &["<|call|>", "<|calls|>"]]];
const END_OF_MESSAGE: &str = "<|end|>";

/// Finds the tokens with a role. Those that never show in text become control tokens.
pub(super) fn resolve(
    vocabulary: &Vocabulary<'_>,
    add_bos_default: bool,
    tokens: &mut Tokens,
) -> Result<SpecialIds, TokenizerError> {
    let index = TextIndex::new(tokens, |_| true);
    let find = |text: &&str| index.get(tokens, text);
    let ids = check_ids(&vocabulary.ids, tokens.len())?;

    let mut ends: Vec<TokenId> = [ids.eos, ids.eot, ids.eom].into_iter().flatten().collect();
    let mut hidden: Vec<TokenId> =
        FILL_IN_MARKS.iter().filter_map(|texts| texts.iter().find_map(find)).collect();
    ends.extend(
        FILE_ENDS.iter().filter_map(|(given, texts)| given(&ids).or_else(|| texts.iter().find_map(find))),
    );
    ends.extend(ENDS.iter().filter_map(find));
    let tag = find(&END_OR_TAG).filter(|id| tokens.kind(*id) != Some(TokenType::Normal));
    ends.extend(tag);
    hidden.extend(ENDS.iter().filter_map(find).chain(tag));
    hidden.extend(FILE_ENDS.iter().filter_map(|(_, texts)| texts.iter().find_map(find)));

    let has = |texts: &[&str]| texts.iter().any(|text| find(text).is_some());
    if MANY_MESSAGES.iter().any(|sets| sets.iter().all(|texts| has(texts))) {
        let end_of_message = find(&END_OF_MESSAGE);
        ends.retain(|id| Some(*id) != end_of_message);
    }
    for id in hidden {
        tokens.set_kind(id, TokenType::Control);
    }

    let add_bos = add(vocabulary.add_bos, add_bos_default, ids.bos, keys::BOS)?;
    // BERT ends a text with its separator, whatever it calls EOS.
    let is_wpm = vocabulary.model == TokenizerModel::Wpm;
    let (eos, add_eos) = if is_wpm {
        let eos = ids.sep.or(ids.eos);
        (eos, add(vocabulary.add_sep, true, eos, keys::SEP)?)
    } else {
        (ids.eos, add(vocabulary.add_eos, false, ids.eos, keys::EOS)?)
    };
    ends.extend(eos);
    ends.sort_unstable();
    ends.dedup();
    Ok(SpecialIds {
        bos: ids.bos,
        eos,
        unk: ids.unk,
        pad: ids.pad,
        end_of_generation: ends,
        add_bos,
        add_eos,
    })
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

/// Refuses ids outside the vocabulary.
fn check_ids(ids: &RoleIds, n_vocab: usize) -> Result<RoleIds, TokenizerError> {
    let max = (n_vocab as u32).saturating_sub(1);
    for (key, id) in ids.by_key() {
        if let Some(id) = id
            && id > max
        {
            return Err(TokenizerError::SpecialId { key, id, max });
        }
    }
    Ok(ids.clone())
}
