//! An engine's counters on the [`metrics`] facade: feature `metrics`.
//!
//! They are reported to the recorder that the host installs before it starts an engine, with the label
//! `model`. Names are those of [`EngineStats`] with the prefix `exsa_`; times are in seconds.

use crate::priority::Priority;
use crate::speculate::DraftSource;
use crate::stats::EngineStats;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Reads one value from a snapshot.
type Read<T> = fn(&EngineStats) -> T;

/// Handles to an engine's metrics, registered once, so that updates need no lookup.
pub(crate) struct Facade {
    gauges: Vec<(Gauge, Read<f64>)>,
    waiting: Vec<(Gauge, Priority)>,
    counters: Vec<(Counter, Read<u64>)>,
    /// Drafts verified and accepted.
    drafts: Vec<(Counter, Counter, DraftSource)>,
    pub(crate) queue_time: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token: Histogram,
}

impl Facade {
    pub(crate) fn new(model: &str) -> Self {
        let model = model.to_owned();
        let gauge = |name: &'static str| gauge!(name, "model" => model.clone());
        let counter = |name: &'static str| counter!(name, "model" => model.clone());
        let histogram = |name: &'static str| histogram!(name, "model" => model.clone());
        let step = |part: &'static str| counter!("exsa_step_microseconds_total", "model" => model.clone(), "part" => part);
        Self {
            gauges: vec![
                (gauge("exsa_running"), |stats| stats.scheduler.running as f64),
                (gauge("exsa_kv_tokens_used"), |stats| stats.scheduler.kv_tokens_used as f64),
                (gauge("exsa_kv_tokens_cached"), |stats| stats.scheduler.kv_tokens_cached as f64),
                (gauge("exsa_kv_tokens_shared"), |stats| stats.scheduler.kv_tokens_shared as f64),
                (gauge("exsa_kv_tokens_max"), |stats| stats.scheduler.kv_tokens_max as f64),
            ],
            waiting: Priority::ALL
                .map(|class| {
                    (gauge!("exsa_waiting", "model" => model.clone(), "class" => class.name()), class)
                })
                .into(),
            counters: vec![
                (counter("exsa_steps_total"), |stats| stats.steps),
                (counter("exsa_tokens_computed_total"), |stats| stats.tokens_computed),
                (counter("exsa_tokens_generated_total"), |stats| stats.tokens_generated),
                (counter("exsa_prompt_tokens_total"), |stats| stats.scheduler.prompt_tokens),
                (counter("exsa_cached_tokens_total"), |stats| stats.scheduler.cached_tokens),
                (counter("exsa_requests_total"), |stats| stats.submitted),
                (counter("exsa_requests_finished_total"), |stats| stats.finished),
                (counter("exsa_requests_failed_total"), |stats| stats.failed),
                (counter("exsa_preemptions_total"), |stats| stats.scheduler.preemptions),
                (counter("exsa_preemptions_saved_total"), |stats| stats.scheduler.preemptions_saved),
                (counter("exsa_draft_runs_total"), |stats| stats.scheduler.drafts.runs),
                (counter("exsa_drafted_tokens_total"), |stats| stats.scheduler.drafted_tokens),
                (counter("exsa_accepted_drafts_total"), |stats| stats.scheduler.accepted_drafts),
                (counter("exsa_rewound_tokens_total"), |stats| stats.scheduler.rewound_tokens),
                (counter("exsa_context_shifts_total"), |stats| stats.scheduler.context_shifts),
                (counter("exsa_embed_passes_total"), |stats| stats.embed_passes),
                (counter("exsa_texts_embedded_total"), |stats| stats.texts_embedded),
                (counter("exsa_tokens_embedded_total"), |stats| stats.tokens_embedded),
                (counter("exsa_prompt_cache_restored_total"), |stats| stats.prompt_cache.restored),
                (counter("exsa_prompt_cache_restored_tokens_total"), |stats| {
                    stats.prompt_cache.restored_tokens
                }),
                (counter("exsa_prompt_cache_failed_total"), |stats| stats.prompt_cache.failed),
                (counter("exsa_prompt_cache_unused_total"), |stats| stats.prompt_cache.unused),
                (counter("exsa_prompt_cache_late_total"), |stats| stats.scheduler.prompt_reads_late),
                (counter("exsa_prompt_cache_saved_total"), |stats| stats.prompt_cache.saved),
                (counter("exsa_prompt_cache_saved_bytes_total"), |stats| stats.prompt_cache.saved_bytes),
                (counter("exsa_prompt_cache_unsaved_total"), |stats| stats.prompt_cache.unsaved),
                (step("plan"), |stats| stats.step_times.plan.as_micros() as u64),
                (step("forward"), |stats| stats.step_times.forward.as_micros() as u64),
                (step("sample"), |stats| stats.step_times.sample.as_micros() as u64),
                (step("emit"), |stats| stats.step_times.emit.as_micros() as u64),
                (step("embed"), |stats| stats.step_times.embed.as_micros() as u64),
            ],
            drafts: DraftSource::ALL
                .map(|source| {
                    let counter = |name: &'static str| {
                        counter!(name, "model" => model.clone(), "source" => source.name())
                    };
                    let drafted = counter("exsa_drafted_tokens_by_source_total");
                    (drafted, counter("exsa_accepted_drafts_by_source_total"), source)
                })
                .into(),
            queue_time: histogram("exsa_queue_time_seconds"),
            time_to_first_token: histogram("exsa_time_to_first_token_seconds"),
            inter_token: histogram("exsa_inter_token_seconds"),
        }
    }

    pub(crate) fn publish(&self, stats: &EngineStats) {
        self.gauges.iter().for_each(|(gauge, value)| gauge.set(value(stats)));
        self.waiting
            .iter()
            .for_each(|(gauge, class)| gauge.set(stats.scheduler.waiting_by_class[class.index()] as f64));
        self.counters.iter().for_each(|(counter, value)| counter.absolute(value(stats)));
        for (drafted, accepted, source) in &self.drafts {
            let counts = stats.scheduler.drafts.by_source[source.index()];
            drafted.absolute(counts.drafted);
            accepted.absolute(counts.accepted);
        }
    }
}
