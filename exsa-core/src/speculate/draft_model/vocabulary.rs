//! Whether two models have the same vocabulary.

use crate::backend::Model;
use crate::error::LoadError;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;

/// Refuses a draft model whose vocabulary differs from the target's.
pub(super) fn check(draft: &dyn Model, target: &dyn Model) -> Result<(), LoadError> {
    let refused = |problem: String| LoadError::Unsupported {
        what: format!("draft model '{}' for '{}': {problem}", draft.info().name, target.info().name),
        supported: "a draft model with the same vocabulary".into(),
    };
    let sizes = [target, draft].map(|model| model.info().n_vocab);
    if sizes[0] != sizes[1] {
        return Err(refused(format!("it has {} tokens, but the target has {}", sizes[1], sizes[0])));
    }
    check_vocabulary(&*draft.tokenizer(), &*target.tokenizer()).map_err(refused)
}

/// Checks that a draft model has the same vocabulary as its target, as
/// [`DraftModel::new`](super::DraftModel::new) does.
///
/// # Errors
///
/// A description of the first difference.
pub fn check_vocabulary(draft: &dyn Tokenizer, target: &dyn Tokenizer) -> Result<(), String> {
    if target.n_vocab() != draft.n_vocab() {
        let (own, other) = (target.n_vocab(), draft.n_vocab());
        return Err(format!("its tokenizer has {other} tokens, but the target's has {own}"));
    }
    let (mut piece, mut other_piece) = (Vec::new(), Vec::new());
    for id in 0..target.n_vocab() as TokenId {
        piece.clear();
        other_piece.clear();
        target.piece(id, &mut piece);
        draft.piece(id, &mut other_piece);
        let same = piece == other_piece
            && target.is_control(id) == draft.is_control(id)
            && target.token_text(id) == draft.token_text(id);
        if !same {
            let [own, other] =
                [target, draft].map(|it| it.token_text(id).unwrap_or_default().escape_debug().to_string());
            return Err(format!("token {id} is '{other}', but '{own}' in the target"));
        }
    }
    Ok(())
}
