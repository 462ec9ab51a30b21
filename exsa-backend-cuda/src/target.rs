//! Targets of the compiler for a device.

/// Compute capability of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// 9 of sm_90.
    pub major: u32,
    /// 0 of sm_90.
    pub minor: u32,
}

impl Capability {
    /// The capability of `sm_90`, given 90.
    #[must_use]
    pub fn of(number: u32) -> Self {
        Self { major: number / 10, minor: number % 10 }
    }

    /// 90 of sm_90.
    #[must_use]
    pub fn number(self) -> u32 {
        self.major * 10 + self.minor
    }
}

/// Target of the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Machine code.
    Machine(u32),
    /// Text that the driver compiles: for devices newer than the compiler.
    Text(u32),
}

impl Target {
    /// The best target for a device among those that the compiler supports; `None` if the device is too old
    /// for it. Machine code runs on devices of the same major and a higher minor number, text on all higher
    /// ones.
    pub fn choose(device: Capability, supported: &[u32]) -> Option<Self> {
        let older = || supported.iter().copied().filter(|number| *number <= device.number());
        match older().filter(|number| number / 10 == device.major).max() {
            Some(number) => Some(Self::Machine(number)),
            None => older().max().map(Self::Text),
        }
    }

    /// Name in options and file names: `sm_90`, `compute_90`.
    pub fn name(self) -> String {
        match self {
            Self::Machine(number) => format!("sm_{number}"),
            Self::Text(number) => format!("compute_{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_get_the_nearest_target() {
        let choose = |device| Target::choose(Capability::of(device), &[75, 80, 86, 90, 120]);
        assert_eq!(choose(90), Some(Target::Machine(90)));
        assert_eq!(choose(89), Some(Target::Machine(86)));
        assert_eq!(choose(87), Some(Target::Machine(86)));
        assert_eq!(choose(121), Some(Target::Machine(120)));
        assert_eq!(choose(103), Some(Target::Text(90)));
        assert_eq!(choose(130), Some(Target::Text(120)));
        assert_eq!(choose(70), None);
        assert_eq!(Target::choose(Capability::of(90), &[]), None);
    }
}
