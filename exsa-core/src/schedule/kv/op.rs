//! Operations on the session's sequences before the next pass.

use crate::token::RequestId;
use crate::token::SeqId;

/// An operation on the session's KV. Operations are executed in list order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvOp {
    /// [`Session::release`](crate::backend::Session::release).
    Release(SeqId),
    /// [`Session::truncate`](crate::backend::Session::truncate) to `len` tokens.
    Truncate {
        /// The sequence.
        seq: SeqId,
        /// Number of tokens to keep.
        len: usize,
    },
    /// [`Session::fork`](crate::backend::Session::fork) of the first `len` tokens.
    Fork {
        /// The sequence that holds the tokens.
        from: SeqId,
        /// The empty sequence that gets them.
        to: SeqId,
        /// Tokens to share, a whole number of blocks.
        len: usize,
    },
    /// [`Session::save`](crate::backend::Session::save) for this request, which is preempted.
    Save {
        /// The request that owns the KV.
        id: RequestId,
        /// The sequence that holds the KV.
        seq: SeqId,
        /// Tokens that the sequence holds.
        len: usize,
    },
    /// [`Session::restore`](crate::backend::Session::restore) of the KV saved for this request.
    Restore {
        /// The request that owns the KV.
        id: RequestId,
        /// The empty sequence that gets the KV.
        seq: SeqId,
        /// Tokens that the sequence will hold.
        len: usize,
    },
    /// [`Session::save`](crate::backend::Session::save) of a sequence for the prompt store: an idle one,
    /// or a prompt at a checkpoint.
    Store(SeqId),
    /// Drops the KV saved for this request, which is no longer needed.
    Discard(RequestId),
}
