//! Pools as models of a registry.

use crate::member::MemberStatus;
use crate::pool::Pool;
use exsa_core::Shutdown;
use exsa_core::queue::FairOptions;
use exsa_core::registry::{Managed, MemberState};
use std::sync::Arc;
use std::time::Duration;

impl Managed for Pool {
    fn begin_shutdown(&self, how: Shutdown) {
        match how {
            Shutdown::Abort => _ = Pool::shut_down(self, Duration::ZERO),
            _ => Pool::begin_shutdown(self),
        }
    }

    fn shut_down(&self, how: Shutdown) {
        let timeout = if how == Shutdown::Abort { Duration::ZERO } else { Duration::MAX };
        Pool::shut_down(self, timeout);
    }

    fn is_shut_down(&self) -> bool {
        Pool::is_shut_down(self)
    }

    fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        Pool::waiting_by_user(self)
    }

    fn members(&self) -> Vec<MemberState> {
        let state = |member: MemberStatus| {
            let word = match &member {
                MemberStatus { missing: true, .. } => "not reached yet",
                MemberStatus { draining: true, .. } => "draining",
                MemberStatus { breaker_open: true, .. } => "resting after failures",
                MemberStatus { ready: true, .. } => "ready",
                _ => "not ready",
            };
            let mut state = MemberState::new(&member.name, word);
            state.ready = member.ready && !member.breaker_open;
            (state.in_flight, state.lost) = (member.in_flight, member.lost);
            state
        };
        Pool::members(self).into_iter().map(state).collect()
    }

    fn set_fair(&self, options: FairOptions) {
        Pool::set_fair(self, options);
    }
}
