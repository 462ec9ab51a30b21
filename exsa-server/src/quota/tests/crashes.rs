//! Crashes: what was acknowledged as used is never given back.

use super::memory::Memory;
use crate::quota::amounts::{Amounts, Kind};
use crate::quota::handle::{Quotas, Reservation};
use crate::quota::ledger::{Account, Payers};
use crate::quota::limits::{Limit, Limits, QuotaConfig};
use proptest::prelude::*;
use redb::{Database, StorageBackend};
use std::sync::Arc;

const LIMIT: u64 = 1_000_000;

fn open(memory: &Memory) -> Quotas {
    let database = Database::builder().set_cache_size(1 << 20).create_with_backend(memory.clone()).unwrap();
    Quotas::open(QuotaConfig::default(), Some(Arc::new(database))).unwrap()
}

fn payers(key: usize) -> Payers {
    let day = Limit::At(LIMIT);
    let limits = Limits { output_tokens_per_day: day, requests_per_day: day, ..Limits::default() };
    vec![(Account::Key(format!("k{key}").into()), limits)]
}

/// Amounts that count as used.
fn used(quotas: &Quotas, key: usize) -> Amounts {
    let mut used = Amounts::default();
    for allowance in quotas.allowances(&payers(key)) {
        used[allowance.kind] = allowance.limit - allowance.remaining;
    }
    used
}

#[derive(Clone, Debug)]
enum Act {
    Begin { key: usize, output: u64 },
    Charge { which: prop::sample::Index, output: u64 },
    Settle { which: prop::sample::Index },
    Crash,
    Close,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<prop::sample::Index>;
    let act = prop_oneof![
        4 => (0_usize..3, 0_u64..50_000).prop_map(|(key, output)| Act::Begin { key, output }),
        4 => (index(), 0_u64..50_000).prop_map(|(which, output)| Act::Charge { which, output }),
        3 => index().prop_map(|which| Act::Settle { which }),
        2 => Just(Act::Crash),
        1 => Just(Act::Close),
    ];
    prop::collection::vec(act, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn acknowledged_use_survives_crashes(acts in acts()) {
        let mut memory = Memory::default();
        let mut quotas = open(&memory);
        let mut running: Vec<(usize, Reservation, Amounts)> = Vec::new();
        let mut acknowledged = [Amounts::default(); 3];
        for act in acts {
            match act {
                Act::Begin { key, output } => {
                    if let Ok(reservation) = quotas.reserve(&payers(key), Amounts::request(0, output)) {
                        running.push((key, reservation, Amounts::default()));
                    }
                }
                Act::Charge { which, output } if !running.is_empty() => {
                    let index = which.index(running.len());
                    let (key, reservation, charged) = &mut running[index];
                    let total = Amounts::request(0, charged.output_tokens + output);
                    // A charge is acknowledged once it is durable.
                    let mut writes = reservation.writes();
                    if !reservation.charge(total) {
                        while !reservation.is_durable() {
                            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                            runtime.block_on(writes.changed()).unwrap();
                        }
                    }
                    acknowledged[*key] = acknowledged[*key].plus(total.minus(*charged));
                    *charged = total;
                }
                Act::Settle { which } if !running.is_empty() => {
                    let (_, reservation, charged) = running.swap_remove(which.index(running.len()));
                    reservation.settle(charged);
                }
                Act::Crash => {
                    memory = memory.crashed();
                    running.clear();
                    quotas = open(&memory);
                }
                Act::Close => {
                    running.clear();
                    let before: Vec<_> = (0..3).map(|key| used(&quotas, key)).collect();
                    quotas.close().unwrap();
                    memory = memory.crashed();
                    quotas = open(&memory);
                    for (key, before) in before.into_iter().enumerate() {
                        prop_assert_eq!(used(&quotas, key), before, "an orderly end costs nothing");
                    }
                }
                _ => {}
            }
            let restarted = open(&memory.crashed());
            for (key, acknowledged) in acknowledged.iter().enumerate() {
                let crashed = used(&restarted, key);
                for kind in [Kind::Requests, Kind::OutputTokens] {
                    let expected = acknowledged[kind].min(LIMIT);
                    prop_assert!(crashed[kind] >= expected, "{:?}: {} < {}", kind, crashed[kind], expected);
                }
            }
        }
    }
}

#[test]
fn a_crash_charges_a_bounded_amount_and_what_was_reserved() {
    let memory = Memory::default();
    let quotas = open(&memory);
    let mut reservation = quotas.reserve(&payers(0), Amounts::request(0, 1000)).unwrap();
    assert!(reservation.charge(Amounts::request(0, 400)));
    let crashed = open(&memory.crashed());
    assert_eq!(used(&crashed, 0).output_tokens, 1000 + 4096);
    reservation.settle(Amounts::request(0, 400));
    assert_eq!(used(&quotas, 0).output_tokens, 400);
}

#[test]
fn minutes_survive_a_restart_too() {
    let memory = Memory::default();
    let per_minute = Limits { output_tokens_per_minute: Limit::At(1000), ..Limits::default() };
    let payers = vec![(Account::Group("team".into()), per_minute)];
    let quotas = open(&memory);
    quotas.reserve(&payers, Amounts::request(0, 900)).unwrap().settle(Amounts::request(0, 900));
    quotas.close().unwrap();
    let remaining = |quotas: &Quotas| quotas.allowances(&payers)[0].remaining;
    let (old, new) = (remaining(&quotas), remaining(&open(&memory.crashed())));
    assert!((100..400).contains(&new) && new.abs_diff(old) <= 2, "{new}, {old}");
    drop(quotas);
    // After a crash the part that was charged ahead is gone as well.
    let quotas = open(&memory);
    quotas.reserve(&payers, Amounts::request(0, 10)).unwrap().settle(Amounts::request(0, 10));
    assert!(remaining(&open(&memory.crashed())) + 62 <= remaining(&quotas));
}

#[test]
fn a_store_that_fails_refuses_requests() {
    #[derive(Debug)]
    struct Failing(Memory, Arc<std::sync::atomic::AtomicBool>);
    impl StorageBackend for Failing {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> std::io::Result<()> {
            match self.1.load(std::sync::atomic::Ordering::Acquire) {
                true => Err(std::io::Error::other("the disk fails")),
                false => self.0.sync_data(),
            }
        }
        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.write(offset, data)
        }
    }
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let backend = Failing(Memory::default(), fails.clone());
    let database = Arc::new(Database::builder().create_with_backend(backend).unwrap());
    let quotas = Quotas::open(QuotaConfig::default(), Some(database)).unwrap();
    fails.store(true, std::sync::atomic::Ordering::Release);
    let refusal = quotas.reserve(&payers(0), Amounts::request(0, 1)).unwrap_err();
    assert!(refusal.to_string().starts_with("the state of the quotas cannot be written: "), "{refusal}");
    assert_eq!(used(&quotas, 0), Amounts::default(), "nothing stays reserved");
}
