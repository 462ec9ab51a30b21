//! Members that are not available yet, and the search for them.

use crate::member::Member;
use crate::pool::Pool;
use crate::shared::Shared;
use exsa_core::error::LoadError;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A member that is not available yet.
pub(crate) struct Missing {
    number: u64,
    pub(crate) name: String,
}

impl Pool {
    /// Adds a member that is not available yet, such as an engine on a machine that is down. A thread calls
    /// `connect` every `interval`, first after that time, until it returns the member. Until then the member
    /// is listed as [`missing`](field@crate::MemberStatus::missing), and requests that no other member
    /// accepts wait for it.
    ///
    /// The search ends with [`remove`](Self::remove), with a member that is [added](Self::add) under the same
    /// name, and with the pool.
    ///
    /// ```
    /// # use exsa_core::scripted::ScriptedModel;
    /// # use exsa_core::{Engine, EngineOptions, Generator, Request};
    /// # use exsa_pool::{Member, Pool, PoolOptions};
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// let pool = Pool::new(PoolOptions::new())?;
    /// pool.add_later("late", Duration::from_millis(10), || {
    ///     let engine = Engine::start(ScriptedModel::echo("Hi.").shared(), EngineOptions::default()).ok()?;
    ///     Some(Member::new("late", Arc::new(engine)))
    /// })?;
    /// while pool.models().is_empty() {
    ///     std::thread::sleep(Duration::from_millis(1));
    /// }
    /// assert_eq!(pool.submit(Request::text("Say it: "))?.complete()?.text, "Hi.");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError::Backend`] if the thread cannot be started.
    pub fn add_later(
        &self,
        name: impl Into<String>,
        interval: Duration,
        connect: impl FnMut() -> Option<Member> + Send + 'static,
    ) -> Result<(), LoadError> {
        let (name, number) = (name.into(), self.shared.number());
        let search = Search { shared: self.shared.clone(), number };
        self.shared.state.lock().missing.push(Missing { number, name: name.clone() });
        // If the thread cannot be started, the search is dropped, and with it the entry.
        let thread = thread::Builder::new().name("exsa-pool-search".into());
        let started = thread.spawn(move || search.run(&name, interval, connect));
        started
            .map(drop)
            .map_err(|error| LoadError::Backend(format!("cannot start the search for a member: {error}")))
    }
}

/// The search for a member; it removes the member from the list when it ends, for whatever reason.
struct Search {
    shared: Arc<Shared>,
    number: u64,
}

impl Search {
    fn run(self, name: &str, interval: Duration, mut connect: impl FnMut() -> Option<Member>) {
        while self.waits(interval) {
            let Some(mut member) = connect() else { continue };
            name.clone_into(&mut member.name);
            let models = member.generator.models();
            let mut state = self.shared.state.lock();
            if state.is_missing(self.number) {
                self.shared.insert(&mut state, member, models);
                drop(state);
                self.shared.notify();
            }
            return;
        }
    }

    /// Waits for the next attempt. Returns whether the search goes on.
    fn waits(&self, interval: Duration) -> bool {
        let until = Instant::now().checked_add(interval);
        let mut state = self.shared.state.lock();
        while state.is_missing(self.number) {
            match until {
                Some(until) if self.shared.search.wait_until(&mut state, until).timed_out() => {
                    return state.is_missing(self.number);
                }
                Some(_) => {}
                None => self.shared.search.wait(&mut state),
            }
        }
        false
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.shared.state.lock().missing.retain(|missing| missing.number != self.number);
        self.shared.notify();
    }
}

impl crate::shared::State {
    fn is_missing(&self, number: u64) -> bool {
        !self.draining && self.missing.iter().any(|missing| missing.number == number)
    }
}
