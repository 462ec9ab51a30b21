//! KV as core sees it: the account of blocks, and the sequences kept for their prefix.

mod account;
mod cache;
mod op;

pub use account::KvAccount;
pub use cache::{KvCache, KvOptions, Prefix};
pub use op::KvOp;
