//! Makes maps that normalize characters, as SentencePiece stores them: a double array of 32-bit nodes
//! (darts-clone).

use std::collections::BTreeMap;

/// Nodes by place; those that are free hold `None`.
type Nodes = Vec<Option<u32>>;

/// The map that replaces each text by another.
pub(super) fn charsmap(replacements: &[(&str, &str)]) -> Vec<u8> {
    let (mut texts, mut starts) = (Vec::new(), BTreeMap::new());
    for (from, to) in replacements {
        starts.insert(from.as_bytes(), texts.len() as u32);
        texts.extend(to.bytes().chain([0]));
    }
    let mut nodes: Nodes = vec![Some(0)];
    place(&mut nodes, 0, &starts, 0);
    // Every byte leads to a node of the same block of 256, which must be there.
    nodes.resize(nodes.len().next_multiple_of(256), None);
    let mut map = (4 * nodes.len() as u32).to_le_bytes().to_vec();
    // A free node must not look like a child: its label is one that no lookup has.
    map.extend(nodes.into_iter().flat_map(|node| node.unwrap_or(1 << 31).to_le_bytes()));
    map.extend(texts);
    map
}

/// Places the children of the node `at`, to which the first `depth` bytes of `texts` lead.
fn place(nodes: &mut Nodes, at: u32, texts: &BTreeMap<&[u8], u32>, depth: usize) {
    let mut children: BTreeMap<u8, BTreeMap<&[u8], u32>> = BTreeMap::new();
    let mut value = None;
    for (text, start) in texts {
        match text.get(depth) {
            Some(byte) => drop(children.entry(*byte).or_default().insert(text, *start)),
            None => value = Some(*start),
        }
    }
    let labels: Vec<u32> =
        value.map(|_| 0).into_iter().chain(children.keys().map(|b| u32::from(*b))).collect();
    let is_free = |nodes: &Nodes, i: u32| nodes.get(i as usize).copied().flatten().is_none();
    // The offset is combined with the node's own place; blocks of 256 stay together.
    let base =
        (1..).find(|base| labels.iter().all(|label| is_free(nodes, (base << 8) ^ label))).unwrap() << 8;
    for label in &labels {
        let child = (base ^ label) as usize;
        nodes.resize(nodes.len().max(child + 1), None);
        nodes[child] = Some(*label);
    }
    if let Some(start) = value {
        nodes[base as usize] = Some(start | 1 << 31);
    }
    let offset = at ^ base;
    assert!(offset < 1 << 21);
    let has_leaf = u32::from(value.is_some()) << 8;
    let node = &mut nodes[at as usize];
    *node = node.map(|node| node | offset << 10 | has_leaf);
    for (byte, texts) in children {
        place(nodes, base ^ u32::from(byte), &texts, depth + 1);
    }
}
