//! Message payload: events as encoded by vLLM.

use super::msgpack::Writer;
use crate::inference::work::client_salt;
use exsa_core::cache_events::{BlockHash, CacheEvent, StoredBlocks};

/// Index of the engine within its server; there is only one.
const RANK: u64 = 0;

/// Storage tier of the KV cache itself. Pickers know `GPU` as the tier that needs no transfer before use,
/// regardless of the processor.
const MEDIUM: &str = "GPU";

/// `[timestamp, [events], rank]` as MessagePack; the timestamp is in seconds.
pub(super) fn encode(timestamp: f64, events: &[CacheEvent]) -> Vec<u8> {
    let mut out = Writer::default();
    out.array(3);
    out.float(timestamp);
    out.array(events.len());
    for event in events {
        match event {
            CacheEvent::Stored(blocks) => stored(blocks, &mut out),
            CacheEvent::Removed(blocks) => removed(blocks, &mut out),
            // Unknown kinds of events make readers start over.
            _ => cleared(&mut out),
        }
    }
    out.uint(RANK);
    out.0
}

fn stored(blocks: &StoredBlocks, out: &mut Writer) {
    // The salt sent by the client: pickers see it in the request and do not know callers.
    let salt = blocks.salt.as_deref().map(client_salt).filter(|salt| !salt.is_empty());
    let salt = salt.filter(|_| blocks.parent.is_none());
    out.map(if salt.is_some() { 9 } else { 8 });
    kind("BlockStored", out);
    hashes(&blocks.hashes, out);
    out.text("parent_block_hash");
    match blocks.parent {
        Some(parent) => out.uint(parent.0),
        None => out.nil(),
    }
    out.text("token_ids");
    out.array(blocks.tokens.len());
    blocks.tokens.iter().for_each(|token| out.uint(u64::from(*token)));
    out.text("block_size");
    out.uint(blocks.block_tokens as u64);
    out.text("lora_id");
    out.nil();
    out.text("lora_name");
    match &blocks.adapter {
        Some(name) => out.text(name),
        None => out.nil(),
    }
    out.text("medium");
    out.text(MEDIUM);
    if let Some(salt) = salt {
        out.text("extra_keys");
        out.array(blocks.hashes.len());
        out.array(1);
        out.text(salt);
        blocks.hashes.iter().skip(1).for_each(|_| out.nil());
    }
}

fn removed(blocks: &[BlockHash], out: &mut Writer) {
    out.map(3);
    kind("BlockRemoved", out);
    hashes(blocks, out);
    out.text("medium");
    out.text(MEDIUM);
}

fn cleared(out: &mut Writer) {
    out.map(1);
    kind("AllBlocksCleared", out);
}

fn kind(name: &str, out: &mut Writer) {
    out.text("type");
    out.text(name);
}

fn hashes(blocks: &[BlockHash], out: &mut Writer) {
    out.text("block_hashes");
    out.array(blocks.len());
    blocks.iter().for_each(|block| out.uint(block.0));
}
