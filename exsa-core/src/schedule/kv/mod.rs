//! KV bookkeeping in core: the block manager, and sequences cached for their prefix.

mod block_manager;
mod cold;
mod manager;
mod op;

pub use block_manager::BlockManager;
pub use cold::ColdKv;
pub use manager::{KvManager, KvOptions, Prefix};
pub use op::KvOp;
