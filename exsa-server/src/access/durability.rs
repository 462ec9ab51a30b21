//! Tests: acknowledged changes survive process crashes and power failures.

use super::keys::KeyRefusal;
use super::secret::{PresentedKey, new_id};
use super::{Caller, KeyOptions, Keys, Store};
use crate::state::unix_seconds;
use redb::StorageBackend;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// Acknowledged changes: key texts by id, and ids of revoked keys.
#[derive(Debug, Default)]
struct Acknowledged {
    made: HashMap<String, String>,
    revoked: HashSet<String>,
}

impl Acknowledged {
    fn check(&self, keys: &Keys) {
        for (id, text) in &self.made {
            let found = keys.find(&PresentedKey::parse(text).unwrap(), unix_seconds());
            match self.revoked.contains(id) {
                true => assert_eq!(found.unwrap_err(), KeyRefusal::Revoked),
                // A revocation may be durable without having been acknowledged.
                false => assert!(matches!(found, Ok(_) | Err(KeyRefusal::Revoked)), "{id}: {found:?}"),
            }
        }
    }
}

/// A write to a disk, or a change of its length.
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(offset, data) => {
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(data);
            }
        }
    }
}

/// A disk that loses power after a number of operations.
#[derive(Default)]
struct Disk {
    /// Content visible to the process.
    seen: Vec<u8>,
    /// Content that is certain to survive.
    synced: Vec<u8>,
    /// Changes since the last sync.
    unsynced: Vec<Change>,
    operations_left: Option<u64>,
}

impl Disk {
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

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.operate()?;
        change.apply(&mut self.seen);
        self.unsynced.push(change);
        Ok(())
    }

    /// Returns the disk after a restart: unsynced changes survive as `survives` says.
    fn restart(&mut self, mut survives: impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.unsynced) {
            if survives() {
                change.apply(&mut self.synced);
            }
        }
        self.seen.clone_from(&self.synced);
        self.operations_left = None;
    }
}

#[derive(Clone)]
struct Backend(Arc<Mutex<Disk>>);

impl std::fmt::Debug for Backend {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(disk.seen.get(range).ok_or_else(|| io::Error::other("read past the end"))?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.operate()?;
        for change in std::mem::take(&mut disk.unsynced) {
            change.apply(&mut disk.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Write(offset, data.to_vec()))
    }
}

fn open(backend: &Backend) -> Option<Keys> {
    Keys::open(Arc::new(Store::with_backend(backend.clone()).ok()?)).ok()
}

/// Creates, rotates and revokes keys until a change fails, or 20 keys are created.
fn change(keys: &Keys, done: &mut Acknowledged, random: &mut Random) -> Option<()> {
    let operator = Caller::operator();
    for number in 0..20 {
        let options =
            KeyOptions::new(format!("key {number}")).group("g".repeat(random.below(100) as usize + 1));
        let (record, text) = keys.create(&options, &operator).ok()?;
        done.made.insert(record.id.clone(), text.expose().to_owned());
        match random.below(4) {
            0 => {
                keys.revoke(&record.id, &operator).ok()?;
                done.revoked.insert(record.id);
            }
            1 => {
                // Both secrets are valid after a rotation, whether or not it was acknowledged.
                let rotated = keys.rotate(&record.id, Some(Duration::from_secs(3600)), &operator);
                done.made.insert(record.id, rotated.ok()?.1.expose().to_owned());
            }
            _ => {}
        }
    }
    Some(())
}

#[test]
fn acknowledged_changes_survive_a_loss_of_power_at_any_write() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut cut, mut kept) = (0, 0);
    for round in 0..200 {
        let backend = Backend(Arc::default());
        let mut done = Acknowledged::default();
        let keys = open(&backend).unwrap();
        // A change takes about twelve operations, 20 keys with their changes about 300.
        backend.0.lock().unwrap().operations_left = Some(random.below(250));
        cut += usize::from(change(&keys, &mut done, &mut random).is_none());
        drop(keys);
        // Either nothing unsynced survives, or some of it.
        let mut survivors = Random(random.0);
        backend.0.lock().unwrap().restart(|| round % 2 == 1 && survivors.below(2) == 0);
        let keys = open(&backend).expect("the store opens after a loss of power");
        done.check(&keys);
        kept += done.made.len();
        // The store is writable again.
        assert!(change(&keys, &mut done, &mut random).is_some());
        done.check(&keys);
    }
    assert!(cut > 150 && kept > 200, "{cut} rounds were cut, {kept} keys acknowledged before");
}

#[test]
fn what_is_left_of_a_store_that_was_being_made_does_no_harm() {
    let folder = std::env::temp_dir().join(format!("exsa-made-{}", new_id().unwrap()));
    drop(Store::open(&folder).unwrap());
    let database = folder.join("exsa.redb");
    // redb cannot open a file whose first write was cut short.
    let cut = std::fs::read(&database).unwrap().len() / 2;
    std::fs::remove_file(&database).unwrap();
    let left = folder.join("exsa.redb.0011223344556677.new");
    std::fs::write(&left, vec![0; cut]).unwrap();
    let keys = Keys::open(Arc::new(Store::open(&folder).unwrap())).unwrap();
    assert!(change(&keys, &mut Acknowledged::default(), &mut Random(1)).is_some() && !left.exists());
    std::fs::remove_dir_all(&folder).unwrap();
}

const FOLDER: &str = "EXSA_DURABILITY_FOLDER";

/// The child process that is killed: creates and revokes keys and reports each acknowledged change.
#[test]
#[ignore = "the child of keys_survive_kill"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let keys = Keys::open(Arc::new(Store::open(&PathBuf::from(folder)).unwrap())).unwrap();
    let operator = Caller::operator();
    let tell = |act: &str, text: &str| {
        let mut out = io::stdout().lock();
        writeln!(out, "\n{act} {text}").and_then(|()| out.flush()).unwrap();
    };
    loop {
        let (record, text) = keys.create(&KeyOptions::new("a"), &operator).unwrap();
        tell("made", text.expose());
        if record.id.ends_with(['0', '1', '2', '3']) {
            keys.revoke(&record.id, &operator).unwrap();
            tell("revoked", &record.id);
        }
    }
}

/// Kills the child at random times. `EXSA_KILLS` sets how often.
#[test]
fn keys_survive_kill() {
    let kills = std::env::var("EXSA_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let folder = std::env::temp_dir().join(format!("exsa-kill-{}", new_id().unwrap()));
    let mut random = Random(u64::from(std::process::id()) | 1);
    let mut done = Acknowledged::default();
    for _ in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "access::durability::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, &folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(20 + random.below(180)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            match line.split_once(' ') {
                Some(("made", text)) if text.len() == 65 => {
                    done.made.insert(text[5..21].to_owned(), text.to_owned());
                }
                Some(("revoked", id)) if id.len() == 16 => drop(done.revoked.insert(id.to_owned())),
                _ => {}
            }
        }
        let keys = Keys::open(Arc::new(Store::open(&folder).unwrap())).unwrap();
        done.check(&keys);
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let (made, revoked) = (done.made.len(), done.revoked.len());
    println!("{kills} kills: {made} keys made and {revoked} revoked, all there");
    assert!(made > kills, "only {made} keys were made");
}
