//! The executor on the emulated device keeps to the contract.

use exsa_conformance::Fixture;
use exsa_core::backend::{KvType, ModelSource, SessionOptions};
use exsa_gpu::GpuBackend;
use exsa_gpu::device::Devices;
use exsa_gpu_emulated::EmulatedDevices;
use std::path::Path;

/// The micro model `name`; `None` where there is no device.
fn micro(name: &str, options: SessionOptions) -> Option<Fixture> {
    let devices = EmulatedDevices::new();
    if let Some(reason) = devices.unavailable() {
        println!("skipped: {reason}");
        return None;
    }
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../exsa-backend-candle/tests/data"));
    let file = |name: &str| ModelSource::file(data.join(format!("{name}.gguf")));
    let fixture = Fixture::new(GpuBackend::new(devices), file(name)).other_model(file("qwen2-f32"));
    Some(fixture.session_options(options).checksummed())
}

exsa_conformance::mount! {
    llama_q8_0: micro("llama-q8_0", SessionOptions::new()),
    gemma2_kv_of_32_bits: micro("gemma2-f32", SessionOptions::new().kv_type(KvType::F32)),
}
