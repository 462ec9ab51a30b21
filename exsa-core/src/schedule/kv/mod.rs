//! KV as core sees it: the block manager, and the sequences kept for their prefix.

mod block_manager;
mod manager;
mod op;

pub use block_manager::BlockManager;
pub use manager::{KvManager, KvOptions, Prefix};
pub use op::KvOp;
