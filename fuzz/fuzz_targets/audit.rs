//! Files of an audit log and checkpoints from any bytes: verified to the end, with findings and without a panic.
#![no_main]

use exsa_server::audit::verify::{Verifier, VerifyOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<u8>, bool)| {
    let (files, checkpoints, partial) = input;
    let mut findings = 0;
    let options = VerifyOptions::default().partial(partial);
    let mut verifier = Verifier::new(options, Some(&checkpoints[..]), |_| findings += 1);
    for file in &files {
        verifier.file("audit", &file[..]).expect("memory can be read");
    }
    let summary = verifier.end().expect("memory can be read");
    assert_eq!(summary.findings, findings);
    // Bytes from nowhere are no whole log: its first line alone takes a hash.
    assert!(findings > 0 || summary.lines > 0);
});
