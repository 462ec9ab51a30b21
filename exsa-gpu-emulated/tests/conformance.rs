//! The executor on the emulated device keeps to the contract.

use exsa_conformance::Fixture;
use exsa_core::backend::ModelSource;
use exsa_gpu::GpuBackend;
use exsa_gpu::device::Devices;
use exsa_gpu_emulated::EmulatedDevices;
use std::path::Path;

/// The micro model `name`; `None` where there is no device.
fn micro(name: &str) -> Option<Fixture> {
    let devices = EmulatedDevices::new();
    if let Some(reason) = devices.unavailable() {
        println!("skipped: {reason}");
        return None;
    }
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../exsa-backend-candle/tests/data"));
    let file = |name: &str| ModelSource::file(data.join(format!("{name}.gguf")));
    let fixture = Fixture::new(GpuBackend::new(devices), file(name)).other_model(file("qwen2-f32"));
    // Keys and values on the edge between two numbers of 16 bits go either way with the order of sums.
    Some(fixture.tolerance(1e-3).checksummed())
}

exsa_conformance::mount! {
    llama_q8_0: micro("llama-q8_0"),
}
