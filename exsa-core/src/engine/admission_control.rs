//! Admission control: counts waiting requests on the submitting threads, and refuses when a queue is full.

use crate::generator::{QueueScope, SubmitError};
use crate::priority::Priority;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Counts accepted requests without a sequence yet.
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
    /// Takes a place in the queue, or refuses with the queue's depth.
    pub(crate) fn enter(
        &self,
        priority: Priority,
        user: &Arc<str>,
        limit: usize,
        user_limit: usize,
    ) -> Result<(), SubmitError> {
        let mut counts = self.0.lock();
        let waiting: usize = counts.classes.iter().sum();
        let own = counts.users.get(user).copied().unwrap_or(0);
        let (waiting, limit, scope) = if waiting >= limit {
            (waiting, limit, QueueScope::All)
        } else if own >= user_limit {
            (own, user_limit, QueueScope::User)
        } else {
            counts.classes[priority.index()] += 1;
            *counts.users.entry_ref(user).or_insert(0) += 1;
            return Ok(());
        };
        // Requests at least as urgent go first.
        let ahead: usize = counts.classes[..=priority.index()].iter().sum();
        let estimated_wait =
            counts.interval.map(|each| each.saturating_mul(ahead.min(u32::MAX as usize) as u32));
        let class_depth = counts.classes[priority.index()];
        Err(SubmitError::QueueFull { waiting, limit, scope, priority, class_depth, estimated_wait })
    }

    /// Returns a place.
    pub(crate) fn leave(&self, priority: Priority, user: &Arc<str>) {
        let mut counts = self.0.lock();
        let class = &mut counts.classes[priority.index()];
        *class = class.saturating_sub(1);
        if let Some(own) = counts.users.get_mut(user) {
            *own -= 1;
            if *own == 0 {
                counts.users.remove(user);
            }
        }
    }

    /// Sets the time between admissions.
    pub(crate) fn set_interval(&self, interval: Option<Duration>) {
        self.0.lock().interval = interval;
    }

    /// Number of waiting requests by user.
    pub(crate) fn by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.0.lock().users.iter().map(|(user, n)| (user.clone(), *n)).collect()
    }
}
