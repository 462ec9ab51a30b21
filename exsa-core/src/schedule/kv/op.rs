//! What the session is to do with its sequences before the next pass.

use crate::token::RequestId;
use crate::token::SeqId;

/// An operation on the session's KV. They are done in the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvOp {
    /// [`Session::release`](crate::backend::Session::release).
    Release(SeqId),
    /// [`Session::truncate`](crate::backend::Session::truncate) to `len` tokens.
    Truncate {
        /// The sequence.
        seq: SeqId,
        /// Tokens that stay.
        len: usize,
    },
    /// [`Session::fork`](crate::backend::Session::fork) of the first `len` tokens.
    Fork {
        /// The sequence that holds them.
        from: SeqId,
        /// The empty sequence that gets them.
        to: SeqId,
        /// Tokens to share, a whole number of blocks.
        len: usize,
    },
    /// [`Session::save`](crate::backend::Session::save) for this request, which is preempted.
    Save {
        /// Whose KV it is.
        id: RequestId,
        /// The sequence that holds it.
        seq: SeqId,
        /// Tokens that it holds.
        len: usize,
    },
    /// [`Session::restore`](crate::backend::Session::restore) of what was saved for this request.
    Restore {
        /// Whose KV it is.
        id: RequestId,
        /// The empty sequence that gets it.
        seq: SeqId,
        /// Tokens that it will hold.
        len: usize,
    },
    /// What was saved for this request is not needed after all.
    Discard(RequestId),
}
