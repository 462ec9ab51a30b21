//! Whether two models have the same vocabulary.

use crate::backend::Model;
use crate::error::LoadError;
use crate::token::TokenId;

/// Refuses a draft model of which a token is not that of the target.
pub(super) fn check(draft: &dyn Model, target: &dyn Model) -> Result<(), LoadError> {
    let refused = |problem: String| LoadError::Unsupported {
        what: format!("draft model '{}' for '{}': {problem}", draft.info().name, target.info().name),
        supported: "a draft model with the same vocabulary".into(),
    };
    let sizes = [target, draft].map(|model| model.info().n_vocab);
    if sizes[0] != sizes[1] {
        return Err(refused(format!("{} tokens, but {} in the target", sizes[1], sizes[0])));
    }
    let [own, other] = [target, draft].map(Model::tokenizer);
    if own.n_vocab() != other.n_vocab() {
        let (own, other) = (own.n_vocab(), other.n_vocab());
        return Err(refused(format!("a tokenizer of {other} tokens, but of {own} in the target")));
    }
    let (mut piece, mut other_piece) = (Vec::new(), Vec::new());
    for id in 0..own.n_vocab() as TokenId {
        piece.clear();
        other_piece.clear();
        own.piece(id, &mut piece);
        other.piece(id, &mut other_piece);
        let same = piece == other_piece
            && own.is_control(id) == other.is_control(id)
            && own.token_text(id) == other.token_text(id);
        if !same {
            let [own, other] =
                [&own, &other].map(|it| it.token_text(id).unwrap_or_default().escape_debug().to_string());
            return Err(refused(format!("token {id} is '{other}', but '{own}' in the target")));
        }
    }
    Ok(())
}
