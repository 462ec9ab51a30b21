//! Selection of the sets of adapters in a pass, for sessions that limit them: each plan takes the sets that
//! were computed least recently, so that none starves.

use super::Scheduler;
use crate::backend::Capabilities;
use crate::batch::SpanAdapter;
use crate::token::SeqId;
use std::sync::Arc;

/// The adapters of a request; `None` for the model alone.
type Set = Option<Arc<[SpanAdapter]>>;

/// Selects the sets of adapters of a plan.
#[derive(Debug)]
pub(super) struct AdapterSets {
    /// Maximum sets per pass; `None` if there is no limit.
    max: Option<usize>,
    /// Sets of this plan.
    chosen: Vec<Set>,
    /// Sets of running sequences, with the number of the last plan that included them, or the number since
    /// which they have been waiting.
    served: Vec<(Set, u64)>,
    /// Twice the number of this plan, which leaves a number between two plans.
    plan: u64,
}

impl AdapterSets {
    /// Creates the selection for a session with up to `sequences` running sequences.
    pub(super) fn new(capabilities: &Capabilities, sequences: usize) -> Self {
        let max = Some(capabilities.batch_adapter_sets_max.max(1));
        let max = max.filter(|max| capabilities.span_adapters_max > 0 && *max < sequences);
        Self { max, chosen: Vec::new(), served: Vec::new(), plan: 0 }
    }

    /// Whether the plan can include work with the adapters of `set`.
    fn admit(&mut self, set: &Set) -> bool {
        let Some(max) = self.max else { return true };
        if self.chosen.contains(set) {
            return true;
        }
        if self.chosen.len() >= max {
            return false;
        }
        match self.served.iter_mut().find(|(served, _)| served == set) {
            Some((_, plan)) => *plan = self.plan,
            None => self.served.push((set.clone(), self.plan)),
        }
        self.chosen.push(set.clone());
        true
    }
}

impl Scheduler {
    /// Chooses the sets of adapters of this plan, among those of sequences with possible work.
    pub(super) fn choose_adapter_sets(&mut self) {
        let Some(max) = self.adapter_sets.max else { return };
        let Self { running, order, adapter_sets: sets, .. } = self;
        sets.plan += 2;
        sets.chosen.clear();
        sets.served.retain(|(set, _)| running.iter().flatten().any(|other| other.request.adapters == *set));
        let active = order.iter().filter_map(|seq| running.get(seq.index())?.as_ref());
        let active = active.filter(|running| running.decodes() || running.prefills());
        let active = active.map(|running| &running.request.adapters);
        for set in active.clone() {
            // A new set ranks before the sets of the last plan, and after the sets that were already waiting.
            if !sets.served.iter().any(|(known, _)| known == set) {
                sets.served.push((set.clone(), sets.plan.saturating_sub(3)));
            }
        }
        for _ in 0..max {
            let last =
                |set: &&Set| sets.served.iter().find(|(known, _)| known == *set).map(|(_, plan)| *plan);
            // The first in order among the sets that have waited longest.
            let waiting = active.clone().filter(|set| !sets.chosen.contains(set));
            let Some(set) = waiting.min_by_key(last).cloned() else { return };
            sets.admit(&set);
        }
    }

    /// Whether the plan can include work of `seq`, which is active.
    pub(super) fn takes_adapters_of(&mut self, seq: SeqId) -> bool {
        let running = self.running.get(seq.index()).and_then(Option::as_ref);
        running.is_some_and(|running| self.adapter_sets.admit(&running.request.adapters))
    }
}
