//! Embeddings and scores: placed by load, and retried when their member is lost.

use crate::shared::Shared;
use exsa_core::embed::{EmbedError, Pending, pending};
use exsa_core::{Generator, RequestError, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Poll interval for cancellation, and delay between retries.
const LOOK: Duration = Duration::from_millis(20);

impl Shared {
    /// Computes an output on the least loaded member, and on another one if it is lost. A thread waits for
    /// the output, so that it can be requested again.
    pub(crate) fn elsewhere<T: Send + 'static>(
        self: &Arc<Self>,
        model: Option<&str>,
        ask: impl Fn(&dyn Generator) -> Result<Pending<T>, SubmitError> + Send + 'static,
    ) -> Result<Pending<T>, SubmitError> {
        let mut output = Some(self.ask(model, &ask)?);
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = cancelled.clone();
        let (sender, result) = pending(move || flag.store(true, Ordering::Relaxed));
        let (shared, model) = (self.clone(), model.map(str::to_owned));
        let waits = move || {
            let mut crashes = 0;
            let begun = shared.now();
            while !cancelled.load(Ordering::Relaxed) {
                let Some(waiting) = output.take() else {
                    match shared.ask(model.as_deref(), &ask) {
                        Ok(next) => output = Some(next),
                        Err(error) if is_passing(&error) => std::thread::sleep(LOOK),
                        Err(error) => {
                            return sender.send(Err(RequestError::Generator(error.to_string()).into()));
                        }
                    }
                    continue;
                };
                match waiting.wait_timeout(LOOK) {
                    Err(waiting) => output = Some(waiting),
                    Ok(Err(EmbedError::Failed(RequestError::Unavailable(_))))
                        if shared.now().saturating_sub(begun) < shared.options.unavailable_max =>
                    {
                        std::thread::sleep(LOOK);
                    }
                    Ok(Err(EmbedError::Failed(error))) if error.is_lost_engine() => {
                        crashes += 1;
                        if shared.options.crashes_max.is_some_and(|max| crashes >= max) {
                            let error = RequestError::Crashed { crashes, reason: error.to_string() };
                            return sender.send(Err(error.into()));
                        }
                    }
                    Ok(output) => return sender.send(output),
                }
            }
        };
        let thread = std::thread::Builder::new().name("exsa-pool-embed".into()).spawn(waits);
        match thread {
            Ok(_) => Ok(result),
            Err(error) => Err(SubmitError::Generator(format!("cannot start a thread: {error}"))),
        }
    }

    /// Submits to the members of a model, least loaded first.
    fn ask<T>(
        &self,
        model: Option<&str>,
        ask: &impl Fn(&dyn Generator) -> Result<Pending<T>, SubmitError>,
    ) -> Result<Pending<T>, SubmitError> {
        self.may_serve(model)?;
        self.of_model(model)?;
        let mut members: Vec<_> = {
            let state = self.state.lock();
            let able = state.members.iter().filter(|member| member.has(model) && member.is_ready());
            able.map(|member| (member.in_flight, member.member.generator.clone())).collect()
        };
        members.sort_by_key(|(in_flight, _)| *in_flight);
        let mut refused = None;
        for (_, generator) in members {
            match ask(&*generator) {
                Ok(output) => return Ok(output),
                Err(error) => _ = refused.get_or_insert(error),
            }
        }
        Err(refused.unwrap_or_else(|| SubmitError::Generator("no member of the pool is ready".into())))
    }
}

/// Returns whether a retry may succeed.
fn is_passing(error: &SubmitError) -> bool {
    matches!(
        error,
        SubmitError::QueueFull { .. } | SubmitError::ModelLoading { .. } | SubmitError::Generator(_)
    )
}
