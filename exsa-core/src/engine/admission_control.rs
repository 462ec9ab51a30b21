//! Who waits, counted on the threads that submit: what a refusal is decided by.

use crate::generator::{QueueScope, SubmitError};
use crate::priority::Priority;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Requests that were accepted and not yet given a sequence.
#[derive(Default)]
pub(crate) struct AdmissionControl(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    classes: [usize; Priority::COUNT],
    users: HashMap<Arc<str>, usize>,
    /// Time from one admission to the next.
    interval: Option<Duration>,
}

impl AdmissionControl {
    /// Takes a place in the queue, or says how full it is.
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
        // Whoever is as urgent or more goes before.
        let ahead: usize = counts.classes[..=priority.index()].iter().sum();
        let estimated_wait =
            counts.interval.map(|each| each.saturating_mul(ahead.min(u32::MAX as usize) as u32));
        let class_depth = counts.classes[priority.index()];
        Err(SubmitError::QueueFull { waiting, limit, scope, priority, class_depth, estimated_wait })
    }

    /// Gives the place back.
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

    /// Sets the time from one admission to the next.
    pub(crate) fn set_interval(&self, interval: Option<Duration>) {
        self.0.lock().interval = interval;
    }

    /// Requests waiting, by user.
    pub(crate) fn by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.0.lock().users.iter().map(|(user, n)| (user.clone(), *n)).collect()
    }
}
