//! Metrics of the prompt cache's files.

use super::page::{Labels, Page};
use exsa_cache::PromptCache;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;
use std::sync::Arc;

/// The prompt cache at the time of a scrape.
#[derive(Debug)]
pub(super) struct Files(pub(super) Arc<PromptCache>);

impl Collector for Files {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mut page, stats) = (Page(encoder), self.0.stats());
        let none = Labels::new;
        for (name, help, value) in [
            ("exsa_prompt_cache_entries", "Entries of the prompt cache", stats.entries as f64),
            ("exsa_prompt_cache_bytes", "Bytes of the prompt cache", stats.bytes as f64),
            ("exsa_prompt_cache_pinned", "Entries that are pinned", stats.pinned as f64),
            (
                "exsa_prompt_cache_suspended",
                "1 after a failed write, until a write succeeds, else 0",
                f64::from(u8::from(stats.suspended)),
            ),
        ] {
            page.gauge(name, help, [(none(), value)])?;
        }
        for (name, help, value) in [
            ("exsa_prompt_cache_lookups", "Lookups in the prompt cache", stats.lookups),
            ("exsa_prompt_cache_hits", "Lookups that found an entry", stats.hits),
            ("exsa_prompt_cache_reads", "Entries read", stats.reads),
            ("exsa_prompt_cache_read_bytes", "Bytes of entries read", stats.read_bytes),
            ("exsa_prompt_cache_read_failures", "Reads that failed", stats.read_failures),
            ("exsa_prompt_cache_writes", "Entries written", stats.writes),
            ("exsa_prompt_cache_written_bytes", "Bytes of entries written", stats.written_bytes),
            ("exsa_prompt_cache_write_failures", "Writes that failed", stats.write_failures),
            ("exsa_prompt_cache_evicted", "Entries removed to free space", stats.evicted),
            ("exsa_prompt_cache_expired", "Entries removed because of their age", stats.expired),
            ("exsa_prompt_cache_damaged", "Damaged files removed", stats.damaged),
        ] {
            page.counter(name, help, [(none(), value)])?;
        }
        Ok(())
    }
}
