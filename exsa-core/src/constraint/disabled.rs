//! What takes the place of compiled constraints where the feature `constraints` is off: there are none.

use super::{Constraint, ConstraintError};
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::convert::Infallible;
use std::sync::Arc;

/// Refuses all constraints.
#[derive(Debug, Default)]
pub(crate) struct Compiler;

impl Compiler {
    pub(crate) fn compile(
        &self,
        _constraint: &Constraint,
        _tokenizer: &Arc<dyn Tokenizer>,
    ) -> Result<Infallible, ConstraintError> {
        Err(ConstraintError::Disabled)
    }
}

/// There is no such state.
#[derive(Debug)]
pub(crate) struct ConstraintState(Infallible);

/// Tokens that may follow.
#[allow(dead_code)] // Never made.
pub(crate) enum Allowed<'a> {
    All,
    Mask(&'a [u64]),
    Forced(TokenId),
}

impl ConstraintState {
    pub(crate) fn new(
        compiled: Infallible,
        _ends: Arc<[TokenId]>,
        _end: TokenId,
    ) -> Result<Self, ConstraintError> {
        match compiled {}
    }

    pub(crate) fn allowed(&mut self) -> Result<Allowed<'_>, ConstraintError> {
        match self.0 {}
    }

    pub(crate) fn prepare(&mut self) {
        match self.0 {}
    }

    pub(crate) fn accept(&mut self, _token: TokenId) -> Result<(), ConstraintError> {
        match self.0 {}
    }

    pub(crate) fn count_plausible(&mut self, _drafts: &[TokenId]) -> usize {
        match self.0 {}
    }
}
