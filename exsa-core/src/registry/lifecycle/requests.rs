//! Requests: routing to an instance, and counts of those in flight.

use super::{InstanceId, Lifecycle, Rest};
use crate::generator::SubmitError;
use std::sync::Arc;
use std::time::Duration;

impl<H: Clone> Lifecycle<H> {
    /// The engine for a request to a model, or to the active model. The caller calls
    /// [`submitted`](Self::submitted) once it has submitted the request or was refused,
    /// and [`released`](Self::released) once the request has ended.
    ///
    /// # Errors
    ///
    /// The reason why there is no engine. A sleeping model, or an unloaded one with `load_on_request`,
    /// begins to load.
    pub fn route(&mut self, model: Option<&str>, now: Duration) -> Result<(InstanceId, H), SubmitError> {
        if self.closed {
            return Err(SubmitError::ShuttingDown);
        }
        let name = match model {
            Some(model) => self.resolve(model).map_err(|_| SubmitError::UnknownModel {
                model: model.to_owned(),
                available: self.names(),
            })?,
            None => {
                self.chosen.clone().ok_or_else(|| SubmitError::NoActiveModel { available: self.names() })?
            }
        };
        let current = self.models.get(&name).and_then(|entry| entry.current);
        if let Some((id, instance)) = current.and_then(|id| Some((id, self.instances.get_mut(&id)?)))
            && let Some(handle) = instance.handle().cloned()
        {
            instance.in_flight += 1;
            instance.submitting += 1;
            instance.last_used = now;
            return Ok((id, handle));
        }
        Err(self.refuse(&name, now))
    }

    /// The reason why a model without a ready instance refuses requests; may start a load.
    fn refuse(&mut self, name: &Arc<str>, now: Duration) -> SubmitError {
        let model = name.to_string();
        let Some(entry) = self.models.get(name) else { return SubmitError::ModelUnloaded { model } };
        if entry.pending.is_none() {
            let refused = entry.refused.as_ref().filter(|(_, until)| now < *until);
            match (&entry.rest, refused) {
                (Rest::Failed(reason), _) => {
                    return SubmitError::ModelFailed { model, reason: reason.clone() };
                }
                (Rest::Unloaded, _) if !self.load_on_request => return SubmitError::ModelUnloaded { model },
                (_, Some((reason, _))) => return SubmitError::ModelFailed { model, reason: reason.clone() },
                _ => {
                    self.begin_load(name, now);
                    self.show(now);
                }
            }
        }
        let pending = self.models.get(name).and_then(|entry| self.instances.get(&entry.pending?));
        let retry_after = pending.and_then(|instance| self.loading_state(instance, now).remaining);
        SubmitError::ModelLoading { model, retry_after }
    }

    /// The engine has accepted or refused the request.
    pub fn submitted(&mut self, id: InstanceId, now: Duration) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.submitting = instance.submitting.saturating_sub(1);
            self.settle(id, now);
        }
    }

    /// The request has ended.
    pub fn released(&mut self, id: InstanceId, now: Duration) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.in_flight = instance.in_flight.saturating_sub(1);
            instance.last_used = now;
        }
    }

    /// Whether an instance other than `id` has a request in flight.
    pub fn is_busy_beside(&self, id: InstanceId) -> bool {
        self.instances.iter().any(|(other, instance)| *other != id && instance.in_flight > 0)
    }
}
