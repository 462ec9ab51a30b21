//! State, loads and memory of the models of a registry, and waiting users.

use super::page::Page;
use crate::models::Models;
use exsa_core::registry::{MemberState, ModelStatus};
use std::collections::BTreeMap;
use std::fmt;

/// Names of states.
const STATES: [&str; 6] = ["unloaded", "loading", "ready", "draining", "sleeping", "failed"];

/// Name, description and value of a counter.
type Count = (&'static str, &'static str, fn(&ModelStatus) -> u64);

/// Writes state and counters of all models.
pub(super) fn write(models: &Models, page: &mut Page<'_>) -> fmt::Result {
    let statuses = models.registry().list();
    let of = |status: &'_ ModelStatus| status.name.clone();
    let names: Vec<_> = statuses.iter().map(of).collect();
    let each = || names.iter().map(String::as_str).zip(&statuses);
    let states = each().flat_map(|(name, status)| {
        let current = status.state.name();
        STATES.map(|state| (vec![("model", name), ("state", state)], f64::from(u8::from(state == current))))
    });
    page.gauge("exsa_model_state", "1 for the state that a model is in, else 0", states)?;
    let active = each().map(|(name, status)| (vec![("model", name)], f64::from(u8::from(status.active))));
    page.gauge("exsa_model_active", "1 for the model of requests that name none, else 0", active)?;
    let in_flight = each().map(|(name, status)| (vec![("model", name)], status.requests as f64));
    page.gauge("exsa_model_requests_in_flight", "Requests of a model in flight", in_flight)?;
    let memory = each().map(|(name, status)| {
        (vec![("model", name)], status.memory.map_or(0.0, |memory| memory.total() as f64))
    });
    page.gauge("exsa_model_memory_bytes", "Estimated memory of the ready or loading instance", memory)?;
    let adapters = each().map(|(name, status)| (vec![("model", name)], status.adapters.len() as f64));
    page.gauge("exsa_model_adapters", "Loaded adapters of the ready instance", adapters)?;
    let adapters = each().map(|(name, status)| (vec![("model", name)], status.adapter_bytes as f64));
    page.gauge("exsa_model_adapter_bytes", "Memory of the instance's adapters", adapters)?;
    let fractions = each().filter_map(|(name, status)| {
        Some((vec![("model", name)], status.loading?.fraction().unwrap_or(0.0)))
    });
    page.gauge("exsa_model_load_progress", "Progress of a running load or reload, 0 to 1", fractions)?;
    let counters: [Count; 3] = [
        ("exsa_model_loads", "Successful loads, including reloads", |s| s.counters.loads),
        ("exsa_model_loads_failed", "Failed loads", |s| s.counters.loads_failed),
        ("exsa_model_evictions", "Evictions to make room for other models", |s| s.counters.evictions),
    ];
    for (name, help, read) in counters {
        page.counter(name, help, each().map(|(model, status)| (vec![("model", model)], read(status))))?;
    }
    let times = each().map(|(name, status)| (vec![("model", name)], status.counters.load_time));
    page.seconds("exsa_model_load", "Time of successful loads", times)?;
    write_members(models, page)?;
    let memory = models.registry().memory();
    let adapters = [(Vec::new(), memory.adapters as f64)];
    page.gauge("exsa_models_memory_adapter_bytes", "Memory of the adapters of all models", adapters)?;
    let help = "Estimated memory of all models that load, serve or drain, with their adapters";
    page.gauge("exsa_models_memory_used_bytes", help, [(Vec::new(), memory.used as f64)])?;
    let budget = memory.budget.map(|budget| (Vec::new(), budget as f64));
    page.gauge("exsa_models_memory_budget_bytes", "Memory budget of all models, if there is one", budget)
}

/// Writes the state of worker processes and remote engines, if there are any.
fn write_members(models: &Models, page: &mut Page<'_>) -> fmt::Result {
    let members = models.registry().members();
    let each =
        || members.iter().flat_map(|(model, members)| members.iter().map(move |member| (&**model, member)));
    if each().next().is_none() {
        return Ok(());
    }
    fn labels<'a>(model: &'a str, member: &'a MemberState) -> Vec<(&'static str, &'a str)> {
        vec![("model", model), ("member", &member.name)]
    }
    let ready = each().map(|(model, member)| (labels(model, member), f64::from(u8::from(member.ready))));
    page.gauge("exsa_member_ready", "1 for a worker or remote engine that takes requests, else 0", ready)?;
    let in_flight = each().map(|(model, member)| (labels(model, member), member.in_flight as f64));
    page.gauge("exsa_member_in_flight", "Answers in flight on a worker or remote engine", in_flight)?;
    let lost = each().map(|(model, member)| (labels(model, member), member.lost));
    page.counter("exsa_member_lost", "Requests that were lost with a worker or remote engine", lost)?;
    let restarts = each().map(|(model, member)| (labels(model, member), member.restarts));
    page.counter("exsa_member_restarts", "Restarts of a worker process", restarts)
}

/// Writes the waiting answers of the users with most of them; the others are summed under an empty name.
pub(super) fn write_users(models: &Models, users_max: usize, page: &mut Page<'_>) -> fmt::Result {
    let mut rows = Vec::new();
    for (model, users) in models.registry().waiting_by_user() {
        rows.extend(
            largest(users, users_max).into_iter().map(|(user, waiting)| (model.clone(), user, waiting)),
        );
    }
    let values = rows
        .iter()
        .map(|(model, user, waiting)| (vec![("model", &**model), ("user", user.as_str())], *waiting as f64));
    page.gauge("exsa_user_waiting", "Answers waiting for a sequence, by user", values)
}

/// Returns the `max` users with the most waiting answers, and the sum of the others under an empty name.
fn largest(users: Vec<(std::sync::Arc<str>, usize)>, max: usize) -> BTreeMap<String, usize> {
    let mut users: Vec<_> = users.into_iter().map(|(user, waiting)| (waiting, user)).collect();
    users.sort_unstable_by(|a, b| b.cmp(a));
    let mut rows = BTreeMap::new();
    let mut named = 0;
    for (waiting, user) in users {
        let own = named < max && !user.is_empty();
        named += usize::from(own);
        *rows.entry(if own { user.to_string() } else { String::new() }).or_default() += waiting;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_beyond_the_limit_are_summed() {
        let users = [("a", 1), ("b", 5), ("", 2), ("c", 3)].map(|(user, waiting)| (user.into(), waiting));
        let rows: Vec<_> = largest(users.to_vec(), 2).into_iter().collect();
        assert_eq!(rows, [(String::new(), 3), ("b".into(), 5), ("c".into(), 3)]);
        assert_eq!(largest(users.to_vec(), 0), BTreeMap::from([(String::new(), 11)]));
    }
}
