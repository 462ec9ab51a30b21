//! Aliases with vLLM's names, for routers and dashboards that only know these.
//!
//! Both generations are exported: the current names, and those with `gpu_` that vLLM has dropped but
//! production-stack still reads. vLLM metrics without a counterpart here are left out.

use super::engines::{DRAFT_POSITION_NAMES, Models};
use super::page::{Labels, Page};
use exsa_core::stats::{EngineStats, Histogram};
use std::fmt;

type Gauge = (&'static str, &'static str, fn(&EngineStats) -> f64);
type Counter = (&'static str, &'static str, fn(&EngineStats) -> u64);
type Times = (&'static str, &'static str, fn(&EngineStats) -> Histogram);

const GAUGES: [Gauge; 5] = [
    ("vllm:num_requests_running", "Running requests", |s| s.scheduler.running as f64),
    ("vllm:num_requests_waiting", "Requests waiting for a sequence", |s| s.scheduler.waiting as f64),
    ("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1", kv_use),
    ("vllm:gpu_cache_usage_perc", "Share of the KV cache in use, 0 to 1 (older name)", kv_use),
    ("vllm:gpu_prefix_cache_hit_rate", "Share of prompt tokens whose KV was cached (older name)", |s| {
        s.hit_rate().unwrap_or(0.0)
    }),
];

const COUNTERS: [Counter; 11] = [
    ("vllm:prefix_cache_queries", "Prompt tokens of admitted requests", |s| s.scheduler.prompt_tokens),
    ("vllm:prefix_cache_hits", "Prompt tokens whose KV was cached", |s| s.scheduler.cached_tokens),
    ("vllm:gpu_prefix_cache_queries", "Prompt tokens of admitted requests (older name)", |s| {
        s.scheduler.prompt_tokens
    }),
    ("vllm:gpu_prefix_cache_hits", "Prompt tokens whose KV was cached (older name)", |s| {
        s.scheduler.cached_tokens
    }),
    ("vllm:num_preemptions", "Preemptions", |s| s.scheduler.preemptions),
    ("vllm:prompt_tokens", "Prompt tokens of admitted requests", |s| s.scheduler.prompt_tokens),
    ("vllm:prompt_tokens_cached", "Prompt tokens whose KV was cached", |s| s.scheduler.cached_tokens),
    ("vllm:generation_tokens", "Tokens generated", |s| s.tokens_generated),
    ("vllm:spec_decode_num_drafts", "Runs of drafts verified", |s| s.scheduler.drafts.runs),
    ("vllm:spec_decode_num_draft_tokens", "Drafts verified", |s| s.scheduler.drafted_tokens),
    ("vllm:spec_decode_num_accepted_tokens", "Drafts accepted", |s| s.scheduler.accepted_drafts),
];

const TIMES: [Times; 3] = [
    ("vllm:time_to_first_token", "Time from submission to the first token", |s| s.time_to_first_token),
    ("vllm:inter_token_latency", "Time between tokens of a stream", |s| s.inter_token),
    ("vllm:request_queue_time", "Time from submission to first admission", |s| s.queue_time),
];

/// Share of the KV cache held by requests, 0 to 1.
pub(super) fn kv_use(stats: &EngineStats) -> f64 {
    let scheduler = &stats.scheduler;
    match scheduler.kv_tokens_max {
        0 => 0.0,
        max => scheduler.kv_tokens_used as f64 / max as f64,
    }
}

/// Writes the aliases for all models.
pub(super) fn write(models: &Models, page: &mut Page<'_>) -> fmt::Result {
    for (name, help, read) in GAUGES {
        page.gauge(name, help, models.iter().map(|(model, stats)| (of(model), read(stats))))?;
    }
    for (name, help, read) in COUNTERS {
        page.counter(name, help, models.iter().map(|(model, stats)| (of(model), read(stats))))?;
    }
    let accepted = models.iter().flat_map(|(model, stats)| {
        let counts = DRAFT_POSITION_NAMES.iter().zip(&stats.scheduler.drafts.by_position);
        counts.map(move |(name, counts)| {
            let mut labels = of(model);
            labels.push(("position", *name));
            (labels, counts.accepted)
        })
    });
    let name = "vllm:spec_decode_num_accepted_tokens_per_pos";
    page.counter(name, "Drafts accepted, by position in their run", accepted)?;
    for (name, help, read) in TIMES {
        page.histogram(name, help, models.iter().map(|(model, stats)| (of(model), read(stats))))?;
    }
    let caches =
        models.iter().filter(|(_, stats)| stats.scheduler.kv_block_tokens > 0).map(|(model, stats)| {
            let scheduler = &stats.scheduler;
            (&**model, scheduler.kv_block_tokens, scheduler.kv_tokens_max / scheduler.kv_block_tokens)
        });
    let caches: Vec<_> =
        caches.map(|(model, size, blocks)| (model, size.to_string(), blocks.to_string())).collect();
    let infos = caches.iter().map(|(model, size, blocks)| {
        let mut labels = of(model);
        labels.extend([("block_size", size.as_str()), ("num_gpu_blocks", blocks.as_str())]);
        (labels, 1.0)
    });
    page.gauge("vllm:cache_config_info", "Tokens per KV block, and number of blocks", infos)
}

fn of(model: &str) -> Labels<'_> {
    vec![("model_name", model), ("engine", "0")]
}
