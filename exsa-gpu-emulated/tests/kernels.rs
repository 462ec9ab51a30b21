//! Every kernel against plain arithmetic, in several orders of threads, with races in threadgroup memory
//! checked; and faults that the emulator must find.

#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_gpu::device::{Arg, Device, DeviceError, Devices, Stream};
use exsa_gpu::kernel::{KvElement, Module, WeightType};
use exsa_gpu::selftest;
use exsa_gpu_emulated::{EmulatedDevice, EmulatedDevices};
use std::sync::Arc;

/// The device, or `None` with a note where it cannot be had.
fn open(devices: EmulatedDevices) -> Option<Arc<EmulatedDevice>> {
    if let Some(reason) = devices.unavailable() {
        println!("skipped: {reason}");
        return None;
    }
    Some(devices.open(None).unwrap())
}

/// Checks `module` in index order, in random switches and by random priorities.
fn check(module: Module) {
    for seed in [0, 1, 2, 3, 4] {
        let Some(device) = open(EmulatedDevices::new().seed(seed).races(true)) else { return };
        let outcomes = selftest::check(&*device, module, seed).unwrap();
        assert!(!outcomes.is_empty());
        for outcome in outcomes {
            assert!(outcome.passed(), "seed {seed}: {outcome}");
        }
    }
}

#[test]
fn passes_over_rows() {
    check(Module::Rows);
}

#[test]
fn attention_over_f16() {
    check(Module::Attention(KvElement::F16));
}

#[test]
fn attention_over_f32() {
    check(Module::Attention(KvElement::F32));
}

#[test]
fn splits_are_merged() {
    check(Module::Combine);
}

#[test]
fn floats() {
    for weight in [WeightType::F32, WeightType::F16, WeightType::BF16] {
        check(Module::Weights(weight));
    }
}

#[test]
fn blocks_of_32() {
    use WeightType::{Iq4Nl, Mxfp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    for weight in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Iq4Nl, Mxfp4] {
        check(Module::Weights(weight));
    }
}

#[test]
fn blocks_of_256() {
    use WeightType::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K};
    for weight in [Q2K, Q3K, Q4K, Q5K, Q6K, Iq4Xs] {
        check(Module::Weights(weight));
    }
}

#[test]
fn all_kernels_have_the_threads_that_the_host_expects() {
    let Some(device) = open(EmulatedDevices::new()) else { return };
    for spec in Module::all().into_iter().flat_map(Module::kernels) {
        device.kernel(&spec).unwrap();
    }
}

/// Runs the faulty kernel.
fn faulty(seed: u64, fault: u32) -> Option<Result<Vec<f32>, DeviceError>> {
    let device = open(EmulatedDevices::new().seed(seed).races(true))?;
    let kernel = device.kernel_named("faulty").unwrap();
    let buffer = device.allocate(4 * 64).unwrap();
    let mut stream = device.stream().unwrap();
    let args = [Arg::Buffer(&buffer, 0), Arg::Params(&fault.to_ne_bytes())];
    let result = stream.launch(&kernel, [1, 1, 1], &args).and_then(|()| {
        let mut bytes = [0; 256];
        stream.read(&buffer, 0, &mut bytes)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b)).collect())
    });
    Some(result)
}

#[test]
fn faults_are_found() {
    for seed in [0, 1, 2] {
        let Some(sound) = faulty(seed, 0) else { return };
        let expected: Vec<f32> = (0..64).map(|i| ((i + 63) % 64) as f32).collect();
        assert_eq!(sound.unwrap(), expected);
        for (fault, text) in [
            (1, "diverged"),
            (2, "race"),
            (3, "index 64 of a threadgroup array of 64"),
            (4, "multiple of 16"),
        ] {
            match faulty(seed, fault).unwrap() {
                Err(DeviceError::Driver(message)) => assert!(message.contains(text), "{message}"),
                other => panic!("fault {fault}: {other:?}"),
            }
        }
    }
}

#[test]
fn commands_out_of_range_are_refused() {
    let Some(device) = open(EmulatedDevices::new().memory(1000)) else { return };
    assert!(matches!(
        device.allocate(1001),
        Err(DeviceError::OutOfMemory { needed: 1001, free: Some(1000) })
    ));
    assert!(matches!(
        device.allocate(u64::MAX),
        Err(DeviceError::Range(_) | DeviceError::OutOfMemory { .. })
    ));
    assert!(matches!(device.allocate(0), Err(DeviceError::Range(_))));
    let buffer = device.allocate(600).unwrap();
    assert!(matches!(device.allocate(600), Err(DeviceError::OutOfMemory { free: Some(400), .. })));
    let mut stream = device.stream().unwrap();
    assert!(matches!(stream.write(&buffer, 597, &[0; 4]), Err(DeviceError::Range(_))));
    assert!(matches!(stream.read(&buffer, u64::MAX, &mut [0; 4]), Err(DeviceError::Range(_))));
    assert!(matches!(stream.copy((&buffer, 0), (&buffer, 300), 301), Err(DeviceError::Range(_))));
    let kernel = device.kernel_named("arg_max").unwrap();
    let few = [Arg::Buffer(&buffer, 0)];
    assert!(matches!(stream.launch(&kernel, [1, 1, 1], &few), Err(DeviceError::Kernel { .. })));
    let args = || [Arg::Buffer(&buffer, 0), Arg::Buffer(&buffer, 4), Arg::Params(&[0; 4])];
    assert!(matches!(stream.launch(&kernel, [1, 70_000, 1], &args()), Err(DeviceError::Range(_))));
    let outside = [Arg::Buffer(&buffer, 0), Arg::Buffer(&buffer, 604), Arg::Params(&[0; 4])];
    assert!(matches!(stream.launch(&kernel, [1, 1, 1], &outside), Err(DeviceError::Range(_))));
    stream.synchronize().unwrap();
    drop(buffer);
    assert_eq!(device.memory().unwrap().free, 1000);
    assert!(EmulatedDevices::new().open(Some("cuda:0")).is_err());
}
