//! Invariants, for simulations.

use super::Lifecycle;
use super::instance::Phase;

impl<H: Clone> Lifecycle<H> {
    /// Checks all invariants.
    ///
    /// # Errors
    ///
    /// A description of the first violated invariant.
    pub fn check(&self) -> Result<(), String> {
        let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        if let Some(budget) = self.memory_bytes_max {
            ensure(self.committed_bytes() <= budget, "committed memory exceeds the budget")?;
            ensure(self.held_bytes() <= budget, "held memory exceeds the budget")?;
        }
        for (name, entry) in &self.models {
            let own = |id| self.instances.get(&id).filter(|instance| instance.model == *name);
            if let Some(current) = entry.current {
                let ready = own(current).is_some_and(|instance| instance.handle().is_some());
                ensure(ready, "the current instance is not ready")?;
            }
            if let Some(pending) = entry.pending {
                let loads = own(pending).is_some_and(|instance| {
                    matches!(instance.phase, Phase::Estimating | Phase::Waiting | Phase::Loading)
                });
                ensure(loads, "the pending instance does not load")?;
            }
            let waits = !entry.unload_waiters.is_empty();
            ensure(!waits || self.leaving(name).next().is_some(), "an unload waits for nothing")?;
        }
        for (id, instance) in &self.instances {
            let entry = self.models.get(&instance.model).ok_or("an instance has no model")?;
            ensure(instance.submitting <= instance.in_flight, "more requests are submitted than in flight")?;
            let listed = entry.current == Some(*id) || entry.pending == Some(*id);
            ensure(listed != instance.is_leaving(), "an instance is neither in use nor leaving")?;
            match &instance.phase {
                Phase::Leaving(leaving) => {
                    ensure(instance.waiters.is_empty(), "a load that has ended is waited for")?;
                    let stuck = leaving.handle.is_some() && instance.submitting == 0;
                    ensure(!stuck, "a settled instance is not shut down")?;
                }
                Phase::Ready(_) => ensure(instance.waiters.is_empty(), "a ready model is waited for")?,
                _ => {}
            }
        }
        let first = self.instances.values().find(|instance| matches!(instance.phase, Phase::Waiting));
        if let Some(first) = first {
            let fits = self.memory_bytes_max.is_none_or(|budget| self.held_bytes() + first.bytes() <= budget);
            ensure(!fits, "a load waits for memory that is free")?;
            ensure(self.instances.values().any(|i| i.is_leaving()), "a load waits and nothing leaves")?;
        }
        ensure(
            self.chosen.as_ref().is_none_or(|name| self.models.contains_key(name)),
            "the active model is unknown",
        )
    }
}
