//! Devices that backends run on.

/// A device that a backend can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Name to pass in [`LoadOptions::device`](super::LoadOptions::device): `cpu`, `cuda:0`.
    pub name: String,
    /// Kind of device.
    pub kind: DeviceKind,
    /// Total memory of the device in bytes, if known.
    pub memory_total: Option<u64>,
    /// Free memory of the device in bytes, if known.
    pub memory_free: Option<u64>,
}

impl DeviceInfo {
    /// A device of unknown memory.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: DeviceKind) -> Self {
        Self { name: name.into(), kind, memory_total: None, memory_free: None }
    }

    /// Sets total and free memory in bytes.
    #[must_use]
    pub fn memory(mut self, total: Option<u64>, free: Option<u64>) -> Self {
        self.memory_total = total;
        self.memory_free = free;
        self
    }
}

/// Kinds of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The host's processor.
    Cpu,
    /// A discrete GPU with its own memory.
    Gpu,
    /// A GPU that shares the host's memory.
    IntegratedGpu,
}
