//! Tests of the ledger, and of what a crash leaves of it.

mod balance;
mod crashes;
mod memory;
mod time;
