//! Token buckets that refill continuously, and daily windows. All arithmetic is exact.

/// Nanoseconds of a minute: a token is this many units of debt, so that a limit of *n* tokens per minute pays
/// off
/// *n* units in a nanosecond.
const UNIT: u128 = 60_000_000_000;
/// Nanoseconds of a day.
const DAY: u64 = 86_400_000_000_000;

/// A bucket as the debt of its user: 0 when full, the limit when empty, more after an answer that exceeded
/// its reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    debt: u128,
    /// Total debt that time has paid off.
    paid: u128,
}

impl Bucket {
    pub(super) fn with_debt(debt: u128) -> Self {
        Self { debt, paid: 0 }
    }

    pub(super) fn debt(self) -> u128 {
        self.debt
    }

    /// The debt in tokens, rounded up.
    pub(super) fn debt_tokens(self) -> u64 {
        u64::try_from(self.debt.div_ceil(UNIT)).unwrap_or(u64::MAX)
    }

    /// Debt of `tokens`.
    pub(super) fn units(tokens: u64) -> u128 {
        u128::from(tokens) * UNIT
    }

    /// Advances time by `elapsed` nanoseconds.
    pub(super) fn pass(&mut self, elapsed: u64, limit: u64) {
        let paid = (u128::from(elapsed) * u128::from(limit)).min(self.debt);
        self.debt -= paid;
        self.paid += paid;
    }

    pub(super) fn charge(&mut self, tokens: u64) {
        self.debt += Self::units(tokens);
    }

    /// Returns the debt paid off so far, for a later [`refund`](Self::refund).
    pub(super) fn mark(self) -> u128 {
        self.paid
    }

    /// Refunds a charge made at `mark`, minus the debt paid off since: that part was already restored, and
    /// may have been used by others.
    pub(super) fn refund(&mut self, tokens: u64, mark: u128) {
        let left = Self::units(tokens).saturating_sub(self.paid - mark.min(self.paid));
        self.debt -= left.min(self.debt);
    }

    /// Tokens available now, given `held` reserved ones.
    pub(super) fn available(self, limit: u64, held: u64) -> u64 {
        let free = Self::units(limit).saturating_sub(self.debt).saturating_sub(Self::units(held));
        u64::try_from(free / UNIT).unwrap_or(u64::MAX)
    }

    /// Nanoseconds until `tokens` are available, if the reservations become charges now. The limit is at
    /// least `tokens`.
    pub(super) fn wait(self, limit: u64, held: u64, tokens: u64) -> u64 {
        let needed = self.debt + Self::units(held) + Self::units(tokens);
        let missing = needed.saturating_sub(Self::units(limit));
        u64::try_from(missing.div_ceil(u128::from(limit.max(1)))).unwrap_or(u64::MAX)
    }
}

/// Usage on a UTC day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Day since 1970.
    day: u64,
    used: u64,
}

impl Window {
    pub(super) fn new(day: u64, used: u64) -> Self {
        Self { day, used }
    }

    pub(super) fn day_of(now: u64) -> u64 {
        now / DAY
    }

    /// Nanoseconds until the next window.
    pub(super) fn rest(now: u64) -> u64 {
        DAY - now % DAY
    }

    /// Begins a new window after midnight; a clock that was set back begins none.
    pub(super) fn pass(&mut self, now: u64) {
        if Self::day_of(now) > self.day {
            *self = Self { day: Self::day_of(now), used: 0 };
        }
    }

    pub(super) fn day(self) -> u64 {
        self.day
    }

    pub(super) fn used(self) -> u64 {
        self.used
    }

    pub(super) fn charge(&mut self, tokens: u64) {
        self.used = self.used.saturating_add(tokens);
    }

    /// Refunds a charge made on `day`.
    pub(super) fn refund(&mut self, tokens: u64, day: u64) {
        if day == self.day {
            self.used = self.used.saturating_sub(tokens);
        }
    }

    pub(super) fn available(self, limit: u64, held: u64) -> u64 {
        limit.saturating_sub(self.used).saturating_sub(held)
    }
}
