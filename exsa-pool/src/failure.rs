//! Requests that can never be served, because all suitable members were given up.

use crate::job::Job;
use crate::member::MemberState;
use crate::shared::{Shared, State};
use exsa_core::{FinishReason, RequestError, SubmitError};
use std::sync::Arc;

impl State {
    /// Returns the error of the first of the `able` members, if there are any and all were given up. A member
    /// that is still missing may be able.
    fn failure(&self, able: impl Fn(&MemberState) -> bool) -> Option<SubmitError> {
        if !self.missing.is_empty() {
            return None;
        }
        let mut first = None;
        for member in self.members.iter().filter(|member| !member.replaced && able(member)) {
            let error = member.failure()?;
            first.get_or_insert(error);
        }
        first
    }

    /// Returns waiting requests whose suitable members were all given up, with their finish reasons.
    pub(crate) fn hopeless(&self) -> Vec<(Arc<Job>, FinishReason)> {
        if self.queue.len() == 0 || !self.members.iter().any(|member| member.failure().is_some()) {
            return Vec::new();
        }
        let failure = |part: &crate::job::Part| {
            let (origin, ran) = {
                let progress = part.job.progress.lock();
                let origin = progress.origin.filter(|_| progress.has_tokens());
                (origin, origin.is_some() || progress.crashes > 0)
            };
            let model = part.job.request.model.as_deref();
            let error = self.failure(|member| {
                may_have(member, model)
                    && !part.excluded.contains(&member.id)
                    && member.continues(origin, model)
            })?;
            let error = error.to_string();
            let error = if ran { RequestError::Lost(error) } else { RequestError::Unavailable(error) };
            Some((part.job.clone(), FinishReason::Failed(error)))
        };
        self.queue.iter().filter_map(failure).collect()
    }
}

impl Shared {
    /// Refuses a request that could never be served.
    pub(crate) fn may_serve(&self, model: Option<&str>) -> Result<(), SubmitError> {
        let state = self.state.lock();
        if state.draining {
            return Err(SubmitError::ShuttingDown);
        }
        state.failure(|member| may_have(member, model)).map_or(Ok(()), Err)
    }
}

/// Returns whether a member has the model, or has not reported its models yet.
fn may_have(member: &MemberState, model: Option<&str>) -> bool {
    member.models.is_empty() || member.has(model)
}
