//! Balances: nothing is lost or doubled, in whatever order requests begin, go on and end.

use crate::quota::amounts::{Amounts, Kind};
use crate::quota::error::Refusal;
use crate::quota::ledger::{Account, Entry, Ledger, Payers};
use crate::quota::limits::{Limit, Limits};
use proptest::prelude::*;

/// Noon of a day.
pub(super) const NOON: u64 = 20_000 * 86_400_000_000_000 + 43_200_000_000_000;

pub(super) fn limits(minute: u64, day: u64) -> Limits {
    Limits {
        requests_per_minute: Limit::At(minute),
        prompt_tokens_per_minute: Limit::At(minute),
        output_tokens_per_minute: Limit::At(minute),
        requests_per_day: Limit::At(day),
        prompt_tokens_per_day: Limit::At(day),
        output_tokens_per_day: Limit::At(day),
        ..Limits::default()
    }
}

pub(super) fn key(id: &str, limits: Limits) -> (Account, Limits) {
    (Account::Key(id.into()), limits)
}

#[derive(Clone, Debug)]
enum Act {
    Begin { key: usize, prompt: u64, output: u64 },
    Charge { which: prop::sample::Index, output: u64 },
    Settle { which: prop::sample::Index, output: u64 },
    Refund { which: prop::sample::Index },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let begin = (0_usize..3, 0_u64..40, 0_u64..40).prop_map(|(key, prompt, output)| Act::Begin {
        key,
        prompt,
        output,
    });
    let index = any::<prop::sample::Index>;
    let charge = (index(), 0_u64..60).prop_map(|(which, output)| Act::Charge { which, output });
    let settle = (index(), 0_u64..60).prop_map(|(which, output)| Act::Settle { which, output });
    let refund = index().prop_map(|which| Act::Refund { which });
    prop::collection::vec(prop_oneof![3 => begin, 3 => charge, 2 => settle, 1 => refund], 0..120)
}

struct Running {
    key: usize,
    entry: Entry,
    reserved: Amounts,
    charged: Amounts,
}

/// Remaining amounts of a payer, the day's after the minute's.
fn remaining(ledger: &Ledger, payer: &(Account, Limits), now: u64) -> Vec<u64> {
    ledger.allowances(&vec![payer.clone()], now).iter().map(|allowance| allowance.remaining).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_balance_is_the_limit_less_settled_and_reserved_use(acts in acts()) {
        let (minute, day) = (200, 300);
        let keys = ["a", "b", "c"].map(|id| key(id, limits(minute, day)));
        let group = (Account::Group("team".into()), limits(2 * minute, 2 * day));
        let payers = |of: usize| -> Payers { vec![keys[of].clone(), group.clone()] };
        let mut ledger = Ledger::default();
        let mut running: Vec<Running> = Vec::new();
        // Settled use of each key.
        let mut settled = [Amounts::default(); 3];
        for act in acts {
            match act {
                Act::Begin { key, prompt, output } => {
                    let reserved = Amounts::request(prompt, output);
                    if let Ok(entry) = ledger.reserve(&payers(key), reserved, NOON) {
                        running.push(Running { key, entry, reserved, charged: Amounts::default() });
                    }
                }
                Act::Charge { which, output } if !running.is_empty() => {
                    let index = which.index(running.len());
                    let Running { entry, charged, .. } = &mut running[index];
                    let total = charged.plus(Amounts { output_tokens: output, ..Amounts::default() });
                    ledger.charge(entry, total, NOON);
                    *charged = total;
                }
                Act::Settle { which, output } if !running.is_empty() => {
                    let index = which.index(running.len());
                    let Running { key, entry, reserved, charged } = running.swap_remove(index);
                    let total = charged.max(Amounts::request(reserved.prompt_tokens, output));
                    ledger.settle(entry, total, NOON);
                    settled[key] = settled[key].plus(total);
                }
                Act::Refund { which } if !running.is_empty() => {
                    let index = which.index(running.len());
                    ledger.refund(running.swap_remove(index).entry, NOON);
                }
                _ => {}
            }
            let mut team = Amounts::default();
            for (index, payer) in keys.iter().enumerate() {
                let of_key = running.iter().filter(|running| running.key == index);
                let outstanding = of_key.fold(settled[index], |sum, running| sum.plus(running.reserved.max(running.charged)));
                team = team.plus(outstanding);
                let expected = |limit: u64| Kind::ALL.map(|kind| limit.saturating_sub(outstanding[kind]));
                let expected = [expected(minute), expected(day)].concat();
                prop_assert_eq!(remaining(&ledger, payer, NOON), expected);
            }
            let expected = |limit: u64| Kind::ALL.map(|kind| limit.saturating_sub(team[kind]));
            prop_assert_eq!(remaining(&ledger, &group, NOON), [expected(2 * minute), expected(2 * day)].concat());
        }
    }

    /// In no time more is settled than the limit and what time brought back.
    #[test]
    fn time_gives_back_no_more_than_the_rate(
        acts in prop::collection::vec((acts(), 0_u64..20_000_000_000), 1..8),
    ) {
        let minute = 100;
        let payer = vec![key("a", Limits { output_tokens_per_minute: Limit::At(minute), ..Limits::default() })];
        let (mut ledger, mut now) = (Ledger::default(), NOON);
        let mut running: Vec<(Entry, u64)> = Vec::new();
        let mut granted = 0;
        for (acts, pause) in acts {
            for act in acts {
                match act {
                    Act::Begin { output, .. } => {
                        if let Ok(entry) = ledger.reserve(&payer, Amounts::request(0, output), now) {
                            running.push((entry, output));
                        }
                    }
                    Act::Settle { which, output } if !running.is_empty() => {
                        let (entry, reserved) = running.swap_remove(which.index(running.len()));
                        let used = output.min(reserved);
                        ledger.settle(entry, Amounts::request(0, used), now);
                        granted += used;
                    }
                    Act::Refund { which } if !running.is_empty() => {
                        let (mut entry, reserved) = running.swap_remove(which.index(running.len()));
                        ledger.charge(&mut entry, Amounts::request(0, reserved), now);
                        now += 1_000_000_000;
                        ledger.refund(entry, now);
                    }
                    _ => {}
                }
            }
            now += pause;
            let rate = u128::from(now - NOON) * u128::from(minute) / 60_000_000_000;
            prop_assert!(u128::from(granted) <= u128::from(minute) + rate, "{} after {} s", granted, (now - NOON) / 1_000_000_000);
        }
    }
}

#[test]
fn a_refused_request_reserves_nothing_of_any_account() {
    let mut ledger = Ledger::default();
    let group = (Account::Group("team".into()), limits(5, 1000));
    let payers = vec![key("a", limits(1000, 1000)), group.clone()];
    let refusal = ledger.reserve(&payers, Amounts::request(3, 6), NOON).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { requested: 6, limit: 5, .. }), "{refusal}");
    let entry = ledger.reserve(&payers, Amounts::request(3, 4), NOON).unwrap();
    let refusal = ledger.reserve(&payers, Amounts::request(3, 4), NOON).unwrap_err();
    assert!(
        refusal.to_string().starts_with("group:team is limited to 5 output tokens per minute: 1 remain"),
        "{refusal}"
    );
    ledger.settle(entry, Amounts::request(3, 4), NOON);
    assert_eq!(remaining(&ledger, &payers[0], NOON)[..3], [999, 997, 996]);
}

#[test]
fn streams_are_limited_while_they_run() {
    let mut ledger = Ledger::default();
    let payers = vec![key("a", Limits { streams: Limit::At(2), ..Limits::default() })];
    let begin = |ledger: &mut Ledger| ledger.reserve(&payers, Amounts::request(1, 1), NOON);
    let first = begin(&mut ledger).unwrap();
    let second = begin(&mut ledger).unwrap();
    assert!(matches!(begin(&mut ledger), Err(Refusal::Streams { limit: 2, streams: 2, .. })));
    ledger.settle(first, Amounts::request(1, 1), NOON);
    let third = begin(&mut ledger).unwrap();
    ledger.refund(second, NOON);
    ledger.refund(third, NOON);
    assert!(begin(&mut ledger).is_ok());
}
