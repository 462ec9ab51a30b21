//! Admission control: counts waiting answers on the submitting threads, and refuses requests when a queue is
//! full.

use crate::generator::{QueueScope, SubmitError};
use crate::priority::Priority;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Counts the answers of accepted requests that have not been assigned a sequence yet.
#[derive(Default)]
pub(crate) struct AdmissionControl(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    classes: [usize; Priority::COUNT],
    users: HashMap<Arc<str>, usize>,
    /// Time between admissions.
    interval: Option<Duration>,
}

impl AdmissionControl {
    /// Takes `n` places in the queue, or refuses with the depth of the queue. An empty queue accepts any
    /// number, so that no request is refused forever.
    pub(crate) fn enter(
        &self,
        priority: Priority,
        user: &Arc<str>,
        n: usize,
        limit: usize,
        user_limit: usize,
    ) -> Result<(), SubmitError> {
        let mut counts = self.0.lock();
        let waiting: usize = counts.classes.iter().sum();
        let own = counts.users.get(user).copied().unwrap_or(0);
        let full = |waiting: usize, limit: usize| waiting >= limit || waiting > 0 && waiting + n > limit;
        let (waiting, limit, scope) = if full(waiting, limit) {
            (waiting, limit, QueueScope::All)
        } else if full(own, user_limit) {
            (own, user_limit, QueueScope::User)
        } else {
            counts.classes[priority.index()] += n;
            *counts.users.entry_ref(user).or_insert(0) += n;
            return Ok(());
        };
        // Requests at least as urgent go first.
        let ahead: usize = counts.classes[..=priority.index()].iter().sum();
        let estimated_wait =
            counts.interval.map(|each| each.saturating_mul(ahead.min(u32::MAX as usize) as u32));
        let class_depth = counts.classes[priority.index()];
        Err(SubmitError::QueueFull { waiting, limit, scope, priority, class_depth, ahead, estimated_wait })
    }

    /// Returns a place.
    pub(crate) fn leave(&self, priority: Priority, user: &Arc<str>) {
        self.leave_all(priority, user, 1);
    }

    /// Returns `n` places.
    pub(crate) fn leave_all(&self, priority: Priority, user: &Arc<str>, n: usize) {
        let mut counts = self.0.lock();
        let class = &mut counts.classes[priority.index()];
        *class = class.saturating_sub(n);
        if let Some(own) = counts.users.get_mut(user) {
            *own = own.saturating_sub(n);
            if *own == 0 {
                counts.users.remove(user);
            }
        }
    }

    /// Sets the time between admissions.
    pub(crate) fn set_interval(&self, interval: Option<Duration>) {
        self.0.lock().interval = interval;
    }

    /// Number of waiting answers by user.
    pub(crate) fn by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.0.lock().users.iter().map(|(user, n)| (user.clone(), *n)).collect()
    }
}
