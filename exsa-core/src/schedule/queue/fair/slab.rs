//! Storage of waiting requests: one table, linked into one list per user.

use crate::schedule::sched_request::SchedRequest;

/// Index into [`Slots`].
pub(super) type SlotId = u32;

/// A waiting request and its neighbours in its list.
#[derive(Debug)]
struct Slot {
    request: SchedRequest,
    previous: Option<SlotId>,
    next: Option<SlotId>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    vacant: Vec<SlotId>,
}

/// A list of slots, sorted by arrival.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    pub(super) first: Option<SlotId>,
    last: Option<SlotId>,
    pub(super) len: usize,
}

impl Slots {
    pub(super) fn insert(&mut self, request: SchedRequest) -> SlotId {
        let slot = Some(Slot { request, previous: None, next: None });
        match self.vacant.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as SlotId
            }
        }
    }

    /// Removes an unlinked slot.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<SchedRequest> {
        let slot = self.slots.get_mut(id as usize)?.take()?;
        self.vacant.push(id);
        Some(slot.request)
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&SchedRequest> {
        self.slots.get(id as usize)?.as_ref().map(|slot| &slot.request)
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut SchedRequest> {
        self.slot_mut(Some(id)).map(|slot| &mut slot.request)
    }

    pub(super) fn next(&self, id: SlotId) -> Option<SlotId> {
        self.slots.get(id as usize)?.as_ref()?.next
    }

    fn slot_mut(&mut self, id: Option<SlotId>) -> Option<&mut Slot> {
        self.slots.get_mut(id? as usize)?.as_mut()
    }

    fn arrival(&self, id: SlotId) -> u64 {
        self.get(id).map_or(0, |request| request.arrival)
    }

    /// Inserts a slot into `list` by arrival. The search starts at the end, where new arrivals go.
    pub(super) fn link(&mut self, list: &mut List, id: SlotId) {
        let arrival = self.arrival(id);
        let mut previous = list.last;
        while let Some(before) = previous.filter(|before| self.arrival(*before) > arrival) {
            previous = self.slots[before as usize].as_ref().and_then(|slot| slot.previous);
        }
        let next = match previous {
            Some(previous) => self.next(previous),
            None => list.first,
        };
        if let Some(slot) = self.slot_mut(Some(id)) {
            (slot.previous, slot.next) = (previous, next);
        }
        match self.slot_mut(previous) {
            Some(slot) => slot.next = Some(id),
            None => list.first = Some(id),
        }
        match self.slot_mut(next) {
            Some(slot) => slot.previous = Some(id),
            None => list.last = Some(id),
        }
        list.len += 1;
    }

    pub(super) fn unlink(&mut self, list: &mut List, id: SlotId) {
        let Some(slot) = self.slot_mut(Some(id)) else { return };
        let (previous, next) = (slot.previous.take(), slot.next.take());
        match self.slot_mut(previous) {
            Some(slot) => slot.next = next,
            None => list.first = next,
        }
        match self.slot_mut(next) {
            Some(slot) => slot.previous = previous,
            None => list.last = previous,
        }
        list.len -= 1;
    }
}
