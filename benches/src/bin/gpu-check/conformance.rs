//! The conformance suite.

use crate::Named;
use crate::report::{Found, TimeLeft};
use exsa_benches::progress::say;
use exsa_conformance::{CASES, Fixture, Outcome};
use exsa_gpu::GpuBackend;
use exsa_gpu::device::Devices;
use serde_json::json;

/// Models that it runs on, the first ones of those given.
const MODELS: usize = 2;

/// Runs the suite while time is left.
pub fn check<P: Devices + Clone>(devices: &P, models: &[Named], time: TimeLeft) -> Result<Found, String> {
    let (mut found, mut is_clean) = (Vec::new(), true);
    for (name, source) in models.iter().take(MODELS) {
        let fixture = Fixture::new(GpuBackend::new(devices.clone()), source.clone());
        let (mut passed, mut skipped, mut failed, mut not_run) = (0, Vec::new(), Vec::new(), 0);
        for case in CASES {
            if !time.is_left() {
                not_run += 1;
                continue;
            }
            match (case.run)(&fixture) {
                Ok(Outcome::Passed) => passed += 1,
                Ok(Outcome::Skipped(reason)) => skipped.push(format!("{}: {reason}", case.name)),
                Err(failure) => failed.push(format!("{}: {failure}", case.name)),
            }
        }
        failed.iter().for_each(say);
        is_clean &= failed.is_empty();
        found.push(json!({
            "model": name,
            "passed": passed,
            "skipped": skipped,
            "failed": failed,
            "not_run_for_lack_of_time": not_run,
        }));
    }
    Ok(Found { value: json!(found), passed: is_clean })
}
