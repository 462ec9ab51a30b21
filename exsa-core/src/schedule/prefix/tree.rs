//! The radix tree: the tokens with KV, and the sequences that hold them.

use super::Namespace;
use super::record::Recorder;
use crate::cache_events::BlockHash;
use crate::token::{SeqId, TokenId};
use hashbrown::HashMap;

/// Index of a node.
pub(super) type NodeId = u32;

/// A radix tree over token ids, one root for each [`Namespace`].
///
/// Each sequence ends at one node and holds the tokens on the path to it. No node lacks both children
/// and sequences, so every node has a sequence at or below it, which holds the tokens up to the node.
#[derive(Debug, Default)]
pub struct PrefixTree {
    pub(super) nodes: Vec<Node>,
    vacant: Vec<NodeId>,
    pub(super) roots: HashMap<Namespace, NodeId>,
    /// End node by sequence id.
    ends: Vec<Option<NodeId>>,
    /// Use counter for LRU order.
    tick: u64,
    /// Present while a host watches the cache.
    pub(super) recorder: Option<Recorder>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    /// `None` for a root.
    pub(super) parent: Option<NodeId>,
    /// Tokens from the parent to this node; empty for a root only.
    pub(super) label: Vec<TokenId>,
    /// Children sorted by the first token of their label.
    pub(super) children: Vec<(TokenId, NodeId)>,
    /// The sequences that end at this node.
    seqs: Vec<SeqId>,
    /// Number of tokens from the root to the end of the label.
    pub(super) depth: usize,
    used: u64,
    /// Blocks whose last token is in the label; empty unless blocks are recorded.
    pub(super) blocks: Vec<BlockHash>,
}

/// The longest known prefix of a token sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The node in whose label the match ends.
    node: NodeId,
    /// Number of matching tokens.
    pub len: usize,
}

/// Length of the common prefix of `a` and `b`.
pub(crate) fn common_len(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl PrefixTree {
    /// Creates an empty tree for sequence ids below `sequences_max`.
    pub fn new(sequences_max: usize) -> Self {
        Self { ends: vec![None; sequences_max], ..Self::default() }
    }

    /// Whether the tree holds no sequence.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The longest prefix of `tokens` that some sequence holds; `None` if there is none.
    pub fn find(&self, namespace: &Namespace, tokens: &[TokenId]) -> Option<Match> {
        let mut found = Match { node: *self.roots.get(namespace)?, len: 0 };
        while let Some(child) = self.child(found.node, tokens.get(found.len)) {
            let label = &self.node(child).label;
            let common = common_len(label, &tokens[found.len..]);
            found = Match { node: child, len: found.len + common };
            if common < label.len() {
                break;
            }
        }
        (found.len > 0).then_some(found)
    }

    /// The longest prefix of `tokens` that equals the whole content of some sequence.
    pub fn find_whole(&self, namespace: &Namespace, tokens: &[TokenId]) -> Option<Match> {
        let mut at = Match { node: *self.roots.get(namespace)?, len: 0 };
        let mut found = None;
        while let Some(child) = self.child(at.node, tokens.get(at.len)) {
            let Node { label, seqs, .. } = self.node(child);
            if !tokens[at.len..].starts_with(label) {
                break;
            }
            at = Match { node: child, len: at.len + label.len() };
            if !seqs.is_empty() {
                found = Some(at);
            }
        }
        found
    }

    /// A sequence that holds the tokens of `found`.
    pub fn holder(&self, found: Match) -> Option<SeqId> {
        let mut node = self.node(found.node);
        while node.seqs.is_empty() {
            node = self.node(node.children.first()?.1);
        }
        node.seqs.first().copied()
    }

    /// Marks every node on the path to `found` as used now.
    pub fn touch(&mut self, found: Match) {
        self.touch_node(found.node);
    }

    fn touch_node(&mut self, node: NodeId) {
        self.tick += 1;
        let mut next = Some(node);
        while let Some(node) = next {
            self.nodes[node as usize].used = self.tick;
            next = self.nodes[node as usize].parent;
        }
    }

    /// Records that `seq` holds `tokens`, an extension of its known tokens.
    pub fn extend(&mut self, seq: SeqId, namespace: &Namespace, tokens: &[TokenId]) {
        let before = self.ends[seq.index()];
        let start = match before {
            Some(node) => node,
            None if tokens.is_empty() => return,
            None => self.root(namespace),
        };
        let end = self.descend(start, seq, tokens);
        if before != Some(end) {
            if let Some(node) = before {
                self.nodes[node as usize].seqs.retain(|other| *other != seq);
            }
            self.nodes[end as usize].seqs.push(seq);
            self.ends[seq.index()] = Some(end);
        }
        self.stored(end, namespace, tokens);
        self.touch_node(end);
    }

    /// Returns the node at the end of `tokens`, and creates missing
    /// nodes. Starts at `node`, which is on the path of `seq`.
    fn descend(&mut self, mut node: NodeId, seq: SeqId, tokens: &[TokenId]) -> NodeId {
        loop {
            let depth = self.node(node).depth;
            if depth >= tokens.len() {
                return node;
            }
            let rest = &tokens[depth..];
            if let Some(child) = self.child(node, rest.first()) {
                let label = &self.node(child).label;
                let common = common_len(label, rest);
                node = if common < label.len() { self.split(child, common) } else { child };
                continue;
            }
            let end = self.node(node);
            if end.children.is_empty() && end.seqs == [seq] && end.parent.is_some() {
                // No other sequence ends here, so the label can grow with the sequence.
                let end = &mut self.nodes[node as usize];
                end.label.extend_from_slice(rest);
                end.depth += rest.len();
                return node;
            }
            let (label, depth) = (rest.to_vec(), depth + rest.len());
            return self.insert(node, Node { label, depth, ..Node::default() });
        }
    }

    /// Removes `seq`, and the nodes that no other sequence holds.
    pub fn remove(&mut self, seq: SeqId) {
        let Some(node) = self.ends.get_mut(seq.index()).and_then(Option::take) else { return };
        self.nodes[node as usize].seqs.retain(|other| *other != seq);
        self.prune(node);
    }

    /// Records that `seq` holds only its first `len` tokens.
    pub fn truncate(&mut self, seq: SeqId, len: usize) {
        let Some(end) = self.ends[seq.index()] else { return };
        let mut node = end;
        while let Some(parent) = self.node(node).parent.filter(|parent| self.node(*parent).depth >= len) {
            node = parent;
        }
        if len == 0 {
            return self.remove(seq);
        }
        if self.node(node).depth > len {
            let above = self.node(node).depth - self.node(node).label.len();
            node = self.split(node, len - above);
        }
        if node != end {
            self.nodes[end as usize].seqs.retain(|other| *other != seq);
            self.nodes[node as usize].seqs.push(seq);
            self.ends[seq.index()] = Some(node);
            self.prune(end);
        }
    }

    /// Tokens that `seq` is known to hold.
    pub fn len_of(&self, seq: SeqId) -> usize {
        self.ends.get(seq.index()).copied().flatten().map_or(0, |node| self.node(node).depth)
    }

    /// The namespace and the tokens of `seq`; `None` if it is empty.
    pub fn content(&self, seq: SeqId) -> Option<(Namespace, Vec<TokenId>)> {
        let mut labels = Vec::new();
        let mut node = self.ends.get(seq.index()).copied().flatten()?;
        while let Some(parent) = self.node(node).parent {
            labels.push(self.node(node).label.as_slice());
            node = parent;
        }
        labels.reverse();
        let namespace = self.roots.iter().find(|(_, root)| **root == node)?.0.clone();
        Some((namespace, labels.concat()))
    }

    /// Whether another sequence holds all that `seq` holds.
    pub fn is_covered(&self, seq: SeqId) -> bool {
        self.end(seq).is_some_and(|end| !end.children.is_empty() || end.seqs.len() > 1)
    }

    /// Tokens of `seq` shared with a branch of other sequences: those above the label of its end node.
    pub fn len_shared(&self, seq: SeqId) -> usize {
        self.end(seq).map_or(0, |end| end.depth - end.label.len())
    }

    /// Tick of the last use of `seq`; larger is later.
    pub fn used(&self, seq: SeqId) -> u64 {
        self.end(seq).map_or(0, |end| end.used)
    }

    /// Calls `each` for every other sequence that ends on the
    /// path of `seq`, and so holds only tokens that `seq` holds.
    pub fn covered_by(&self, seq: SeqId, mut each: impl FnMut(SeqId)) {
        let mut next = self.ends.get(seq.index()).copied().flatten();
        while let Some(node) = next {
            let node = self.node(node);
            node.seqs.iter().filter(|other| **other != seq).for_each(|other| each(*other));
            next = node.parent;
        }
    }

    fn end(&self, seq: SeqId) -> Option<&Node> {
        Some(self.node(self.ends.get(seq.index()).copied().flatten()?))
    }

    fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node as usize]
    }

    fn child(&self, node: NodeId, token: Option<&TokenId>) -> Option<NodeId> {
        let children = &self.node(node).children;
        let at = children.binary_search_by_key(token?, |(token, _)| *token).ok()?;
        Some(children[at].1)
    }

    fn root(&mut self, namespace: &Namespace) -> NodeId {
        match self.roots.get(namespace) {
            Some(root) => *root,
            None => {
                let root = self.place(Node::default());
                self.roots.insert(namespace.clone(), root);
                root
            }
        }
    }

    fn place(&mut self, node: Node) -> NodeId {
        match self.vacant.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as NodeId
            }
        }
    }

    fn insert(&mut self, parent: NodeId, node: Node) -> NodeId {
        let first = node.label[0];
        let id = self.place(Node { parent: Some(parent), ..node });
        let children = &mut self.nodes[parent as usize].children;
        let at = children.partition_point(|(token, _)| *token < first);
        children.insert(at, (first, id));
        id
    }

    /// Splits the label of `node` after `at` tokens. Returns the new node above it.
    fn split(&mut self, node: NodeId, at: usize) -> NodeId {
        let lower = &mut self.nodes[node as usize];
        let (parent, used) = (lower.parent, lower.used);
        let rest = lower.label.split_off(at);
        let label = std::mem::replace(&mut lower.label, rest);
        let depth = lower.depth - lower.label.len();
        let (first, second) = (label[0], lower.label[0]);
        let above = self.blocks_ending(depth, label.len());
        let lower = &mut self.nodes[node as usize];
        let rest = lower.blocks.split_off(above);
        let blocks = std::mem::replace(&mut lower.blocks, rest);
        let children = vec![(second, node)];
        let upper = self.place(Node { parent, label, depth, used, children, seqs: Vec::new(), blocks });
        self.nodes[node as usize].parent = Some(upper);
        if let Some(parent) = parent {
            let children = &mut self.nodes[parent as usize].children;
            if let Ok(at) = children.binary_search_by_key(&first, |(token, _)| *token) {
                children[at].1 = upper;
            }
        }
        upper
    }

    /// Removes `node` and its ancestors as far as they have neither children nor sequences.
    fn prune(&mut self, mut node: NodeId) {
        while self.node(node).children.is_empty() && self.node(node).seqs.is_empty() {
            let gone = std::mem::take(&mut self.nodes[node as usize]);
            self.vacant.push(node);
            if let Some(recorder) = &mut self.recorder {
                recorder.removed(gone.blocks);
            }
            let Some(parent) = gone.parent else {
                self.roots.retain(|_, root| *root != node);
                return;
            };
            self.nodes[parent as usize].children.retain(|(_, child)| *child != node);
            node = parent;
        }
    }

    /// Checks the shape of the tree. Returns the first fault as text.
    pub fn check(&self) -> Result<(), String> {
        let mut reached = 0;
        let mut stack: Vec<_> = self.roots.values().copied().collect();
        while let Some(id) = stack.pop() {
            reached += 1;
            let node = self.node(id);
            if node.children.is_empty() && node.seqs.is_empty() {
                return Err(format!("node {id} has no sequence below"));
            }
            if self.recorder.is_some()
                && node.blocks.len() != self.blocks_ending(node.depth, node.label.len())
            {
                return Err(format!("node {id}: {} blocks recorded", node.blocks.len()));
            }
            if !node.children.is_sorted_by(|a, b| a.0 < b.0) {
                return Err(format!("node {id}: children out of order"));
            }
            if let Some(seq) = node.seqs.iter().find(|seq| self.ends[seq.index()] != Some(id)) {
                return Err(format!("{seq} is listed at node {id} but ends elsewhere"));
            }
            for (token, child) in &node.children {
                let below = self.node(*child);
                if below.parent != Some(id)
                    || below.label.first() != Some(token)
                    || below.depth != node.depth + below.label.len()
                {
                    return Err(format!("node {child} does not fit below node {id}"));
                }
                stack.push(*child);
            }
        }
        if reached + self.vacant.len() != self.nodes.len() {
            return Err(format!(
                "{reached} nodes reached, {} vacant of {}",
                self.vacant.len(),
                self.nodes.len()
            ));
        }
        Ok(())
    }
}
