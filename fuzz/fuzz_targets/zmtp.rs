//! Peers of the sockets for events of the prefix cache: any bytes end their connection, without a panic and
//! within the limits of frames and subscriptions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| exsa_server::fleet::read_peer(bytes));
