//! Tests: the state of a folder after a loss of power and with a full disk.

use crate::disk::{Disk, Listed, NewFile};
use crate::{CacheKey, CacheNotice, CacheOptions, PromptCache};
use exsa_core::TokenId;
use exsa_core::backend::Fingerprint;
use exsa_core::prompt_cache::{PromptKey, PromptStore, SavedPrompt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const PATIENCE: Duration = Duration::from_secs(60);

/// Random numbers for the positions of crashes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A disk that loses power after a number of operations, or is full.
#[derive(Clone, Debug, Default)]
struct Platter(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    contents: Vec<Content>,
    /// Names visible to the process.
    names: BTreeMap<String, usize>,
    /// Names that certainly survive a loss of power.
    durable: BTreeMap<String, usize>,
    operations_left: Option<u64>,
    is_full: bool,
}

#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    synced: Vec<u8>,
}

impl World {
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The disk after a loss of power. Any part of the data that was not synced may have survived.
    fn restart(&mut self, random: &mut Random) {
        for content in &mut self.contents {
            content.seen = match random.below(3) {
                0 => content.synced.clone(),
                1 => content.seen.clone(),
                // Blocks of a file that was extended but not written.
                _ => {
                    let mut torn = content.seen.clone();
                    let start = content.synced.len() + random.below(1 + torn.len() as u64) as usize;
                    torn.iter_mut().skip(start).for_each(|byte| *byte = 0);
                    if content.synced.len() == content.seen.len() { content.synced.clone() } else { torn }
                }
            };
            content.synced.clone_from(&content.seen);
        }
        let mut names = self.durable.clone();
        for (name, file) in &self.names {
            if random.below(2) == 0 {
                names.insert(name.clone(), *file);
            }
        }
        names.retain(|name, _| self.names.contains_key(name) || random.below(2) == 0);
        (self.names, self.durable) = (names.clone(), names);
        self.operations_left = None;
    }
}

struct Handle {
    world: Arc<Mutex<World>>,
    file: usize,
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut world = self.world.lock();
        world.operate()?;
        if world.is_full {
            return Err(ErrorKind::StorageFull.into());
        }
        // Writes may be short.
        let bytes = &bytes[..bytes.len().min(700)];
        world.contents[self.file].seen.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for Handle {
    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.world.lock();
        world.operate()?;
        let content = &mut world.contents[self.file];
        content.synced.clone_from(&content.seen);
        Ok(())
    }
}

fn gone() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Disk for Platter {
    fn list(&self) -> io::Result<Vec<Listed>> {
        let world = self.0.lock();
        let listed = |(name, file): (&String, &usize)| Listed {
            name: name.clone(),
            bytes: world.contents[*file].seen.len() as u64,
            modified: SystemTime::now(),
        };
        Ok(world.names.iter().map(listed).collect())
    }

    fn open(&self, name: &str) -> io::Result<(Box<dyn Read>, u64)> {
        let world = self.0.lock();
        let bytes = world.contents[*world.names.get(name).ok_or_else(gone)?].seen.clone();
        let length = bytes.len() as u64;
        Ok((Box::new(Cursor::new(bytes)), length))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let mut world = self.0.lock();
        world.operate()?;
        let file = world.contents.len();
        world.contents.push(Content::default());
        world.names.insert(name.to_owned(), file);
        Ok(Box::new(Handle { world: self.0.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.0.lock();
        world.operate()?;
        let file = world.names.remove(from).ok_or_else(gone)?;
        world.names.insert(to.to_owned(), file);
        // Then the folder is synced.
        world.operate()?;
        world.durable = world.names.clone();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.0.lock();
        world.operate()?;
        world.names.remove(name).map(drop).ok_or_else(gone)
    }

    fn touch(&self, _name: &str, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn is_abandoned(&self, _file: &Listed) -> bool {
        true
    }
}

fn tokens(number: u64) -> Vec<TokenId> {
    (0..150).map(|i| (i * 31 + number as u32 * 7919) % 997).collect()
}

fn key(tokens: &[TokenId]) -> PromptKey<'_> {
    PromptKey::new(Fingerprint(1), tokens)
}

fn record(tokens: &[TokenId]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

fn options() -> CacheOptions {
    CacheOptions::new("").bytes_max(20_000).retry(Duration::ZERO)
}

/// Writes an entry. Returns whether that succeeded.
fn write(cache: &PromptCache, number: u64) -> bool {
    let tokens = tokens(number);
    let before = cache.stats().writes;
    cache.write(SavedPrompt::new(&key(&tokens), record(&tokens)));
    assert!(cache.flush(PATIENCE));
    cache.stats().writes > before
}

#[test]
fn entries_are_whole_or_gone_after_a_loss_of_power_at_any_operation() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut cuts, mut kept) = (0, 0);
    for round in 0..300 {
        let disk = Platter::default();
        let options = options().key((round % 2 == 0).then(|| CacheKey::new([7; 32])));
        let cache = PromptCache::with_disk(Box::new(disk.clone()), &options).unwrap();
        disk.0.lock().operations_left = Some(random.below(120));
        let written: Vec<u64> = (0..18).take_while(|number| write(&cache, *number)).collect();
        // Pins are as durable as entries.
        let pinned = written.last().and_then(|number| {
            let id = cache.find(&key(&tokens(*number)), true)?.entry;
            cache.pin(id, true).ok().map(|()| id)
        });
        cuts += usize::from(written.len() < 18);
        let evicted = cache.stats().evicted as usize;
        drop(cache);
        disk.0.lock().restart(&mut random);

        let cache =
            PromptCache::with_disk(Box::new(disk.clone()), &options).expect("a start is never refused");
        assert_eq!(cache.stats().damaged, 0, "round {round}: synced before it is renamed");
        for number in 0..20 {
            let tokens = tokens(number);
            let found = cache.find(&key(&tokens), true);
            if let Some(found) = found {
                assert_eq!(cache.record(found.entry).unwrap(), record(&tokens), "round {round}");
            }
            let is_acknowledged = written.get(evicted..).is_some_and(|left| left.contains(&number));
            assert!(found.is_some() || !is_acknowledged, "round {round}: entry {number} is lost");
        }
        if let Some(id) = pinned {
            assert!(cache.list().iter().any(|entry| entry.id == id && entry.pinned), "round {round}");
        }
        kept += written.len();
        assert!(write(&cache, 100), "the folder can be written again");
        let names: Vec<_> = disk.0.lock().names.keys().cloned().collect();
        assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
    }
    assert!(cuts > 150 && kept > 1000, "{cuts} rounds were cut, {kept} entries written before");
}

#[test]
fn a_full_disk_stops_writing_until_there_is_room() {
    let disk = Platter::default();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let options = options()
        .retry(Duration::from_millis(200))
        .on_notice(move |notice| hears.lock().push(notice.clone()));
    let cache = PromptCache::with_disk(Box::new(disk.clone()), &options).unwrap();
    assert!(write(&cache, 1));
    disk.0.lock().is_full = true;
    assert!(!write(&cache, 2));
    let stats = cache.stats();
    assert!(stats.suspended && stats.write_failures == 1);
    assert_eq!(cache.buffer(100, Duration::ZERO), None, "nothing is saved for it");
    // Notices come after the counters.
    wait(|| !heard.lock().is_empty());
    assert!(matches!(heard.lock()[..], [CacheNotice::WritingSuspended { .. }]), "{heard:?}");
    // Entries can be read, and the failure has left nothing behind.
    let found = cache.find(&key(&tokens(1)), true).unwrap();
    assert_eq!(cache.record(found.entry).unwrap(), record(&tokens(1)));
    assert_eq!(disk.0.lock().names.len(), 1);

    disk.0.lock().is_full = false;
    std::thread::sleep(Duration::from_millis(250));
    assert!(cache.buffer(100, Duration::ZERO).is_some());
    assert!(write(&cache, 2));
    assert!(!cache.stats().suspended);
    wait(|| heard.lock().len() > 1);
    assert_eq!(heard.lock().last(), Some(&CacheNotice::WritingResumed));
}

/// Waits at most five seconds.
fn wait(until: impl Fn() -> bool) {
    for _ in 0..1000 {
        if until() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
