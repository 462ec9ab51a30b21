//! Placement of a part on a member.

use crate::job::Part;
use crate::member::MemberState;
use exsa_core::Continuation;
use std::time::Duration;

/// Requirements of a part besides its request.
pub(crate) struct Need<'a> {
    pub(crate) part: &'a Part,
    /// Terms on which its answer was begun; `None` if no token was sent.
    pub(crate) origin: Option<Continuation>,
    /// Whether it was running in a crash.
    pub(crate) suspect: bool,
    /// The member on which it was lost last.
    pub(crate) lost: Option<u64>,
    /// Load, in answers, that a cached prefix is worth.
    pub(crate) slack: usize,
}

/// Returns the index of the member that should compute a part now.
///
/// The member that has computed the longest prefix of the prompt is preferred, unless its load exceeds the
/// least loaded by more than the slack. Parts that were running in a crash go to the member with the fewest
/// such parts, so that a crashing request affects few others, and back to the member that was lost only if no
/// other accepts them, since its process may still be exiting.
pub(crate) fn choose(members: &[MemberState], need: &Need<'_>, now: Duration) -> Option<usize> {
    let part = need.part;
    let able = |member: &MemberState| {
        let model = part.job.request.model.as_deref();
        member.has(model)
            && !part.excluded.contains(&member.id)
            && member.takes(part.answers(), now)
            && member.continues(need.origin, model)
    };
    let able: Vec<usize> = (0..members.len()).filter(|index| able(&members[*index])).collect();
    let load = |index: usize| members[index].in_flight;
    if need.suspect {
        let was_lost = |index: usize| Some(members[index].id) == need.lost;
        return able
            .into_iter()
            .min_by_key(|index| (was_lost(*index), members[*index].suspects, load(*index)));
    }
    let keys = &part.job.keys;
    let matched = |index: usize| members[index].affinity.matched(keys);
    let least = able.iter().map(|index| load(*index)).min()?;
    let near = able.iter().copied().filter(|index| load(*index) <= least.saturating_add(need.slack));
    let best = near.max_by_key(|index| (matched(*index), std::cmp::Reverse(load(*index))))?;
    if matched(best) * 2 >= keys.len().max(1) {
        return Some(best);
    }
    // Ties go to the least recently used member, so that idle members alternate.
    let idle = able.into_iter().filter(|index| load(*index) == least);
    idle.min_by_key(|index| (std::cmp::Reverse(matched(*index)), members[*index].submitted))
}
