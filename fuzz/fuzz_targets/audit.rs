//! Files of an audit log and checkpoints from any bytes: verified to the end, with findings and without a
//! panic.
#![no_main]

use exsa_server::audit::verify::{Verifier, VerifyOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The byte 255, which no text has, stands between the checkpoints and the files.
    let mut parts = bytes.split(|byte| *byte == 255);
    let checkpoints = parts.next();
    let mut findings = 0;
    let options = VerifyOptions::default().partial(bytes.len() % 2 == 0);
    let mut verifier = Verifier::new(options, checkpoints, |_| findings += 1);
    for file in parts {
        verifier.file("audit", file).expect("memory can be read");
    }
    let summary = verifier.end().expect("memory can be read");
    assert_eq!(summary.findings, findings);
    assert!(findings > 0 || summary.lines > 0, "no line at all is a finding");
});
