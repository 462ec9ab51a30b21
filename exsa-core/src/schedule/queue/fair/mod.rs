//! Strict priority between classes, and a fair share per user within each class.

mod class;
mod counters;
mod slab;

use super::{QueueOrder, Service, View};
use crate::priority::Priority;
use crate::schedule::sched_request::SchedRequest;
use crate::token::RequestId;
use class::ClassQueue;
use hashbrown::HashMap;
use slab::{SlotId, Slots};
use std::time::Duration;

/// Settings of a [`FairQueue`].
///
/// ```
/// use exsa_core::EngineOptions;
/// use exsa_core::queue::FairOptions;
/// use std::time::Duration;
///
/// let fair = FairOptions::default().ageing(Duration::from_secs(10));
/// let options = EngineOptions::default().fair(fair);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct FairOptions {
    /// Time without service after which a class gets one turn ahead of more urgent classes; 5 s by default.
    /// The request served in that turn is then treated as one of the most urgent class. Thus no class
    /// starves, and the most urgent class loses at most one admission per interval and class.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub ageing: Duration,
}

impl Default for FairOptions {
    fn default() -> Self {
        Self { ageing: Duration::from_secs(5) }
    }
}

impl FairOptions {
    /// Sets the time without service after which a class gets one turn.
    #[must_use]
    pub fn ageing(mut self, ageing: Duration) -> Self {
        self.ageing = ageing;
        self
    }
}

/// The default order of an engine.
///
/// The most urgent class goes first. Within a class, Virtual Token Counters (Sheng et al., "Fairness in
/// Serving Large Language Models", OSDI 2024) give every user with waiting requests the same service per
/// weight: the least served user goes next, prompts are charged at admission, without cached tokens,
/// generated tokens as they are generated, and the counter of a returning user is lifted to the level of the
/// others. Among users whose service is within the view's quantum, and among the first requests of each, the
/// longest cached prefix goes first (deficit longest prefix match, Cao et al., arXiv 2501.14312).
#[derive(Debug, Default)]
pub struct FairQueue {
    options: FairOptions,
    slots: Slots,
    by_id: HashMap<RequestId, SlotId>,
    classes: [ClassQueue; Priority::COUNT],
    /// The selected request: class and slot.
    chosen: Option<(usize, SlotId)>,
}

impl FairQueue {
    /// Creates an empty queue.
    pub fn new(options: FairOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Service per weight charged to a user in a class.
    pub fn counter(&self, priority: Priority, user: crate::priority::UserId) -> Option<f64> {
        self.classes[priority.index()].counter(user)
    }

    /// The class to serve next, and whether by ageing.
    fn turn(&self, now: Duration) -> Option<(usize, bool)> {
        let waiting = || (0..Priority::COUNT).filter(|class| self.classes[*class].len() > 0);
        let first = waiting().next()?;
        let unserved = |class: &usize| self.classes[*class].unserved(now);
        let aged =
            waiting().skip(1).filter(|class| unserved(class) >= self.options.ageing).max_by_key(unserved);
        Some(aged.map_or((first, false), |class| (class, true)))
    }

    fn take(&mut self, class: usize, slot: SlotId) -> Option<SchedRequest> {
        self.chosen = None;
        self.classes[class].unlink(&mut self.slots, slot);
        let request = self.slots.remove(slot)?;
        self.by_id.remove(&request.id);
        Some(request)
    }
}

impl QueueOrder for FairQueue {
    fn set_fair(&mut self, options: FairOptions) {
        self.options = options;
    }

    fn push(&mut self, request: SchedRequest, now: Duration) {
        self.chosen = None;
        let (id, class) = (request.id, request.priority.index());
        let slot = self.slots.insert(request);
        self.by_id.insert(id, slot);
        self.classes[class].link(&mut self.slots, slot, now);
    }

    fn choose(&mut self, view: &View<'_>) -> Option<RequestId> {
        let (class, aged) = self.turn(view.now)?;
        let slot = self.classes[class].choose(&self.slots, view)?;
        self.chosen = Some((class, slot));
        let request = self.slots.get_mut(slot)?;
        request.history.aged |= aged;
        Some(request.id)
    }

    fn chosen(&self) -> Option<&SchedRequest> {
        self.slots.get(self.chosen?.1)
    }

    fn pop(&mut self, now: Duration) -> Option<SchedRequest> {
        let (class, slot) = self.chosen?;
        self.classes[class].served(&self.slots, slot, now);
        self.take(class, slot)
    }

    fn remove(&mut self, id: RequestId) -> Option<SchedRequest> {
        let slot = *self.by_id.get(&id)?;
        let class = self.slots.get(slot)?.priority.index();
        self.take(class, slot)
    }

    fn len(&self) -> usize {
        self.by_id.len()
    }

    fn depth(&self, priority: Priority) -> usize {
        self.classes[priority.index()].len()
    }

    fn position(&self, id: RequestId) -> Option<usize> {
        let slot = *self.by_id.get(&id)?;
        let class = self.slots.get(slot)?.priority.index();
        let before: usize = self.classes[..class].iter().map(ClassQueue::len).sum();
        Some(before + self.classes[class].position(&self.slots, slot))
    }

    fn charge(&mut self, service: Service) {
        self.classes[service.priority.index()].charge(service.user, service.cost());
    }
}
