//! Records the blocks filled by the tree's tokens, as events for the host.

use super::Namespace;
use super::tree::{NodeId, PrefixTree};
use crate::cache_events::{BlockHash, CacheEvent, StoredBlocks};
use crate::token::TokenId;

/// Changes of blocks that were not drained yet.
#[derive(Debug)]
pub(super) struct Recorder {
    block_tokens: usize,
    events: Vec<CacheEvent>,
}

impl PrefixTree {
    /// Records changes of the blocks from now on, as blocks of `block_tokens` tokens. Returns events that
    /// store all present blocks, parents first.
    pub fn record(&mut self, block_tokens: usize) -> Vec<CacheEvent> {
        self.recorder = Some(Recorder { block_tokens: block_tokens.max(1), events: Vec::new() });
        let roots: Vec<_> = self.roots.iter().map(|(namespace, root)| (namespace.clone(), *root)).collect();
        for (namespace, root) in roots {
            let (mut tokens, mut stack) = (Vec::new(), vec![root]);
            while let Some(id) = stack.pop() {
                let node = &mut self.nodes[id as usize];
                node.blocks.clear();
                tokens.truncate(node.depth - node.label.len());
                tokens.extend_from_slice(&node.label);
                stack.extend(node.children.iter().map(|(_, child)| *child));
                self.stored(id, &namespace, &tokens);
            }
        }
        self.drain_events()
    }

    /// Ends the recording.
    pub fn stop_recording(&mut self) {
        self.recorder = None;
        self.nodes.iter_mut().for_each(|node| node.blocks = Vec::new());
    }

    /// The changes since the last call, in order.
    pub fn drain_events(&mut self) -> Vec<CacheEvent> {
        self.recorder.as_mut().map(|recorder| std::mem::take(&mut recorder.events)).unwrap_or_default()
    }

    /// Records the new blocks that end in the label of `node`. `tokens` are the tokens from the root to the
    /// end of the label.
    pub(super) fn stored(&mut self, node: NodeId, namespace: &Namespace, tokens: &[TokenId]) {
        let Some(recorder) = &mut self.recorder else { return };
        let size = recorder.block_tokens;
        let end = &self.nodes[node as usize];
        let first = (end.depth - end.label.len()) / size + end.blocks.len();
        let blocks = first..end.depth / size;
        if blocks.is_empty() {
            return;
        }
        let mut above = Some(end);
        let parent = std::iter::from_fn(|| {
            let node = above?;
            above = node.parent.map(|parent| &self.nodes[parent as usize]);
            Some(node)
        });
        let parent = parent.filter_map(|node| node.blocks.last().copied()).next();
        let tokens = &tokens[blocks.start * size..blocks.end * size];
        let stored = StoredBlocks::new(parent, namespace, tokens, size);
        self.nodes[node as usize].blocks.extend_from_slice(&stored.hashes);
        recorder.events.push(CacheEvent::Stored(stored));
    }

    /// Number of blocks that end in the last `label` of `depth` tokens; 0 unless they are recorded.
    pub(super) fn blocks_ending(&self, depth: usize, label: usize) -> usize {
        self.recorder.as_ref().map_or(0, |recorder| {
            let size = recorder.block_tokens;
            depth / size - (depth - label) / size
        })
    }
}

impl Recorder {
    pub(super) fn removed(&mut self, blocks: Vec<BlockHash>) {
        if !blocks.is_empty() {
            self.events.push(CacheEvent::Removed(blocks));
        }
    }
}
