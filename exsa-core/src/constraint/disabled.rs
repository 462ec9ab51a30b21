//! Uninhabited stand-ins for compiled constraints without the feature `constraints`.

use super::{Constraint, ConstraintError};
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::convert::Infallible;
use std::sync::Arc;

/// Refuses all constraints.
#[derive(Debug)]
pub(crate) struct Compiler;

/// Cannot be constructed.
#[derive(Debug)]
pub(crate) enum Compiled {}

impl Compiler {
    pub(crate) fn new(_tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self
    }

    pub(crate) fn compile(&self, _constraint: &Constraint) -> Result<Compiled, ConstraintError> {
        Err(ConstraintError::Disabled)
    }
}

impl Compiled {
    pub(crate) fn state_with(
        &self,
        _end_of_generation: &[TokenId],
        _stop_tokens: &[TokenId],
    ) -> Result<ConstraintState, ConstraintError> {
        match *self {}
    }
}

/// Cannot be constructed.
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
    pub(crate) fn allowed(&mut self) -> Result<Allowed<'_>, ConstraintError> {
        match self.0 {}
    }

    pub(crate) fn forced(&mut self) -> Result<Option<TokenId>, ConstraintError> {
        match self.0 {}
    }

    pub(crate) fn prepare(&mut self) {
        match self.0 {}
    }

    pub(crate) fn accept(&mut self, _token: TokenId) -> Result<(), ConstraintError> {
        match self.0 {}
    }

    pub(crate) fn rollback(&mut self, _n: usize) -> Result<(), ConstraintError> {
        match self.0 {}
    }

    pub(crate) fn count_plausible(&mut self, _drafts: &[TokenId]) -> usize {
        match self.0 {}
    }
}
