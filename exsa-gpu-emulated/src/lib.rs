//! A GPU emulated on the CPU: the kernels of `exsa-gpu`, compiled as C++, run one threadgroup after another
//! with every thread as a fibre. It finds barriers that some threads miss, races in threadgroup memory,
//! indices out of threadgroup arrays and faults that hide in the order of threads; it says nothing about
//! speed.
//!
//! Its list of devices is empty, with a reason, where the build found no C++ compiler.
//!
//! ```
//! use exsa_gpu::device::Devices;
//! use exsa_gpu_emulated::EmulatedDevices;
//!
//! let devices = EmulatedDevices::new().seed(3).races(true);
//! match devices.unavailable() {
//!     Some(reason) => println!("no emulator: {reason}"),
//!     None => assert_eq!(devices.list().len(), 1),
//! }
//! ```

mod buffer;
mod device;
mod devices;
#[cfg(emulated)]
mod ffi;
#[cfg(not(emulated))]
#[path = "ffi_absent.rs"]
mod ffi;
mod stream;

pub use buffer::EmulatedBuffer;
pub use device::{EmulatedDevice, EmulatedKernel};
pub use devices::EmulatedDevices;
pub use stream::EmulatedStream;
