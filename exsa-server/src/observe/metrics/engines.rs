//! Statistics of engines, with the label `model`, under the names of [`EngineStats`] with the prefix `exsa_`.

use super::page::{Labels, Page};
use exsa_core::Priority;
use exsa_core::speculate::DraftSource;
use exsa_core::stats::{DRAFT_POSITIONS, DraftCounts, EngineStats, Histogram};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Statistics by model.
pub(super) type Models = [(Arc<str>, EngineStats)];

type Gauge = (&'static str, &'static str, fn(&EngineStats) -> usize);
type Counter = (&'static str, &'static str, fn(&EngineStats) -> u64);
type Times = (&'static str, &'static str, fn(&EngineStats) -> Histogram);

const GAUGES: [Gauge; 7] = [
    ("exsa_running", "Running requests", |s| s.scheduler.running),
    ("exsa_paused", "Running requests whose client does not read", |s| s.scheduler.paused),
    ("exsa_kv_tokens_used", "Tokens of KV in blocks held by requests", |s| s.scheduler.kv_tokens_used),
    ("exsa_kv_tokens_cached", "Tokens of KV in blocks held only by the prefix cache", |s| {
        s.scheduler.kv_tokens_cached
    }),
    ("exsa_kv_tokens_shared", "Tokens of KV in blocks shared by several sequences", |s| {
        s.scheduler.kv_tokens_shared
    }),
    ("exsa_kv_tokens_max", "Tokens of KV in all blocks", |s| s.scheduler.kv_tokens_max),
    ("exsa_embeds_open", "Requests for embeddings or scores in flight", |s| s.embeds_open),
];

const COUNTERS: [Counter; 26] = [
    ("exsa_requests", "Requests accepted", |s| s.submitted),
    ("exsa_requests_finished", "Requests ended, failed ones included", |s| s.finished),
    ("exsa_requests_failed", "Requests that failed", |s| s.failed),
    ("exsa_steps", "Forward passes", |s| s.steps),
    ("exsa_prompt_tokens", "Prompt tokens of admitted requests", |s| s.scheduler.prompt_tokens),
    ("exsa_cached_tokens", "Prompt tokens whose KV was cached", |s| s.scheduler.cached_tokens),
    ("exsa_tokens_computed", "Tokens computed, recomputed ones included", |s| s.tokens_computed),
    ("exsa_tokens_generated", "Tokens generated", |s| s.tokens_generated),
    ("exsa_preemptions", "Preemptions", |s| s.scheduler.preemptions),
    ("exsa_preemptions_saved", "Preemptions whose KV was saved", |s| s.scheduler.preemptions_saved),
    ("exsa_draft_runs", "Runs of drafts verified", |s| s.scheduler.drafts.runs),
    ("exsa_drafted_tokens", "Drafts verified", |s| s.scheduler.drafted_tokens),
    ("exsa_accepted_drafts", "Drafts accepted", |s| s.scheduler.accepted_drafts),
    ("exsa_rewound_tokens", "Generated tokens that were discarded", |s| s.scheduler.rewound_tokens),
    ("exsa_context_shifts", "Shifts of a full context", |s| s.scheduler.context_shifts),
    ("exsa_prompt_cache_restored", "Prompts restored from the prompt cache", |s| s.prompt_cache.restored),
    ("exsa_prompt_cache_restored_tokens", "Tokens of prompts restored from the prompt cache", |s| {
        s.prompt_cache.restored_tokens
    }),
    ("exsa_prompt_cache_unrestored", "Reads of the prompt cache without a usable entry", |s| {
        s.prompt_cache.failed
    }),
    ("exsa_prompt_cache_unused", "Reads of the prompt cache that ended too late", |s| s.prompt_cache.unused),
    ("exsa_prompt_cache_late", "Requests that computed their prompt because a read was late", |s| {
        s.scheduler.prompt_reads_late
    }),
    ("exsa_prompt_cache_saved", "Prompts saved to the prompt cache", |s| s.prompt_cache.saved),
    ("exsa_prompt_cache_saved_bytes", "Bytes of prompts saved to the prompt cache", |s| {
        s.prompt_cache.saved_bytes
    }),
    ("exsa_prompt_cache_unsaved", "Prompts that the prompt cache did not accept", |s| s.prompt_cache.unsaved),
    ("exsa_embed_passes", "Forward passes for embeddings or scores", |s| s.embed_passes),
    ("exsa_texts_embedded", "Texts embedded or scored", |s| s.texts_embedded),
    ("exsa_tokens_embedded", "Tokens of texts embedded or scored", |s| s.tokens_embedded),
];

const TIMES: [Times; 3] = [
    ("exsa_queue_time", "Time from submission to first admission", |s| s.queue_time),
    ("exsa_time_to_first_token", "Time from submission to the first token", |s| s.time_to_first_token),
    ("exsa_inter_token", "Time between tokens of a stream", |s| s.inter_token),
];

/// Positions of drafts as labels.
pub(super) const DRAFT_POSITION_NAMES: [&str; DRAFT_POSITIONS] = ["0", "1", "2", "3", "4", "5", "6", "7"];

/// Name and time of a part.
type Part = (&'static str, fn(&EngineStats) -> Duration);

/// Parts of a step.
const PARTS: [Part; 5] = [
    ("plan", |s| s.step_times.plan),
    ("forward", |s| s.step_times.forward),
    ("sample", |s| s.step_times.sample),
    ("emit", |s| s.step_times.emit),
    ("embed", |s| s.step_times.embed),
];

/// Writes the statistics of all models.
pub(super) fn write(models: &Models, page: &mut Page<'_>) -> fmt::Result {
    for (name, help, read) in GAUGES {
        page.gauge(name, help, models.iter().map(|(model, stats)| (of(model), read(stats) as f64)))?;
    }
    let waiting = models.iter().flat_map(|(model, stats)| {
        Priority::ALL.map(|class| {
            let labels = vec![("model", &**model), ("class", class.name())];
            (labels, stats.scheduler.waiting_by_class[class.index()] as f64)
        })
    });
    page.gauge("exsa_waiting", "Requests waiting for a sequence, by class", waiting)?;
    for (name, help, read) in COUNTERS {
        page.counter(name, help, models.iter().map(|(model, stats)| (of(model), read(stats))))?;
    }
    drafts(models, page)?;
    let parts = models.iter().flat_map(|(model, stats)| {
        PARTS.map(|(part, read)| (vec![("model", &**model), ("part", part)], read(stats)))
    });
    page.seconds("exsa_step", "Time of all steps, by part", parts)?;
    for (name, help, read) in TIMES {
        page.histogram(name, help, models.iter().map(|(model, stats)| (of(model), read(stats))))?;
    }
    Ok(())
}

/// Writes draft counters by source, and by position in their run, from 0; the last position includes all
/// later ones.
fn drafts(models: &Models, page: &mut Page<'_>) -> fmt::Result {
    type Read = fn(&DraftCounts) -> u64;
    let kinds: [(&str, &str, &str, Read); 2] = [
        ("exsa_drafted_tokens_by_source", "exsa_drafted_tokens_by_position", "Drafts verified", |c| {
            c.drafted
        }),
        ("exsa_accepted_drafts_by_source", "exsa_accepted_drafts_by_position", "Drafts accepted", |c| {
            c.accepted
        }),
    ];
    for (by_source, by_position, what, read) in kinds {
        let sources = models.iter().flat_map(|(model, stats)| {
            DraftSource::ALL.map(|source| {
                let labels = vec![("model", &**model), ("source", source.name())];
                (labels, read(&stats.scheduler.drafts.by_source[source.index()]))
            })
        });
        page.counter(by_source, &format!("{what}, by source"), sources)?;
        let positions = models.iter().flat_map(|(model, stats)| {
            let counts = DRAFT_POSITION_NAMES.iter().zip(&stats.scheduler.drafts.by_position);
            counts.map(move |(name, counts)| (vec![("model", &**model), ("position", *name)], read(counts)))
        });
        page.counter(by_position, &format!("{what}, by position in their run"), positions)?;
    }
    Ok(())
}

fn of(model: &str) -> Labels<'_> {
    vec![("model", model)]
}
