//! The KV cache: blocks of tokens that sequences share, and the tensors behind them.

mod blocks;
mod host;
mod store;
mod transfer;

pub(crate) use blocks::{BlockCopy, BlockTables};
pub(crate) use host::HostKv;
pub(crate) use store::{KvLayer, KvShape, KvStore, SlotRun, slot_runs};
