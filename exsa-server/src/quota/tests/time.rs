//! Times: waits are exact, days begin at midnight, clocks may go back.

use super::balance::{NOON, key, limits};
use crate::quota::amounts::Amounts;
use crate::quota::error::Refusal;
use crate::quota::ledger::{Ledger, Payers};
use crate::quota::limits::{Limit, Limits};
use proptest::prelude::*;

const DAY: u64 = 86_400_000_000_000;

fn wait(refusal: Refusal) -> u64 {
    match refusal {
        Refusal::Limit { wait, .. } => wait.as_nanos() as u64,
        other => panic!("{other}"),
    }
}

fn use_up(ledger: &mut Ledger, payers: &Payers, amounts: Amounts, now: u64) {
    let entry = ledger.reserve(payers, amounts, now).unwrap();
    ledger.settle(entry, amounts, now);
}

proptest! {
    #[test]
    fn a_request_is_accepted_after_its_wait_and_not_before(
        limit in 1_u64..5000, used in 0_u64..5000, asked in 1_u64..5000, pause in 0_u64..70_000_000_000,
    ) {
        let (used, asked) = (used.min(limit), asked.min(limit));
        let payers = vec![key("a", Limits { output_tokens_per_minute: Limit::At(limit), ..Limits::default() })];
        let mut ledger = Ledger::default();
        use_up(&mut ledger, &payers, Amounts::request(0, used), NOON);
        let now = NOON + pause;
        if let Err(refusal) = ledger.reserve(&payers, Amounts::request(0, asked), now) {
            let then = now + wait(refusal);
            prop_assert!(ledger.reserve(&payers, Amounts::request(0, asked), then - 1).is_err());
            prop_assert!(ledger.reserve(&payers, Amounts::request(0, asked), then).is_ok());
        }
    }
}

#[test]
fn the_longest_wait_is_told() {
    let payers = vec![key("a", limits(10, 10))];
    let mut ledger = Ledger::default();
    use_up(&mut ledger, &payers, Amounts::request(4, 10), NOON);
    let refusal = ledger.reserve(&payers, Amounts::request(4, 5), NOON).unwrap_err();
    assert!(refusal.to_string().contains("10 output tokens per day: 0 remain"), "{refusal}");
    assert_eq!(wait(refusal), DAY / 2);
}

#[test]
fn a_day_begins_at_midnight_of_utc() {
    let payers = vec![key("a", Limits { requests_per_day: Limit::At(1), ..Limits::default() })];
    let mut ledger = Ledger::default();
    use_up(&mut ledger, &payers, Amounts::request(0, 0), NOON);
    assert!(ledger.reserve(&payers, Amounts::request(0, 0), NOON + DAY / 2 - 1).is_err());
    let entry = ledger.reserve(&payers, Amounts::request(0, 0), NOON + DAY / 2).unwrap();
    // A clock that was set back by a day gives nothing back.
    assert!(ledger.reserve(&payers, Amounts::request(0, 0), NOON - DAY).is_err());
    // The request of yesterday that goes on is charged to the day in which it ends.
    ledger.settle(entry, Amounts::request(0, 0), NOON + DAY + DAY / 2);
    assert!(ledger.reserve(&payers, Amounts::request(0, 0), NOON + DAY + DAY / 2).is_err());
}

#[test]
fn a_change_of_limits_keeps_the_use() {
    let at =
        |limit| vec![key("a", Limits { output_tokens_per_minute: Limit::At(limit), ..Limits::default() })];
    let mut ledger = Ledger::default();
    use_up(&mut ledger, &at(100), Amounts::request(0, 60), NOON);
    let remaining = |ledger: &Ledger, limit, now| ledger.allowances(&at(limit), now)[0].remaining;
    assert_eq!(remaining(&ledger, 80, NOON), 20);
    assert_eq!(remaining(&ledger, 50, NOON), 0);
    assert_eq!(remaining(&ledger, 600, NOON), 540);
    // Half of a minute brings half of the limit of that time back.
    assert_eq!(remaining(&ledger, 100, NOON + 30_000_000_000), 90);
}
