//! Every kernel against plain arithmetic.

use crate::report::Found;
use exsa_benches::progress::say;
use exsa_gpu::device::Devices;
use exsa_gpu::kernel::Module;
use exsa_gpu::selftest;
use serde_json::{Map, json};

/// Checks every module on random shapes. A device that is lost is opened anew for the next module.
pub fn check<P: Devices>(devices: &P) -> Result<Found, String> {
    let mut device = devices.open(None).map_err(|error| error.to_string())?;
    let (mut passed, mut failed, mut worst) = (0, Vec::new(), Map::new());
    for module in Module::all() {
        let name = module.name();
        match selftest::check(&*device, module, 1) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    match outcome.passed() {
                        true => passed += 1,
                        false => failed.push(outcome.to_string()),
                    }
                    let share = outcome.error / outcome.limit;
                    let most = worst.get(&name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
                    worst.insert(name.clone(), json!(share.max(most)));
                }
            }
            Err(error) => {
                failed.push(format!("{name}: {error}"));
                drop(device);
                device = devices.open(None).map_err(|error| error.to_string())?;
            }
        }
    }
    failed.iter().for_each(say);
    let is_clean = failed.is_empty();
    Ok(Found {
        value: json!({ "passed": passed, "failed": failed, "worst_error_by_limit": worst }),
        passed: is_clean,
    })
}
