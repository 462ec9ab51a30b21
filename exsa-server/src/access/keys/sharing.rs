//! Tests of keys that one server exports and others import.

use super::file::{KeyFile, KeyFileError};
use super::watch::Watch;
use super::*;
use crate::access::AllowedModels;
use crate::access::secret::new_id;
use redb::backends::InMemoryBackend;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// A folder for this test alone, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("exsa-shared-keys-{}", new_id().unwrap()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn keys() -> Keys {
    Keys::open(Arc::new(Store::with_backend(InMemoryBackend::new()).unwrap())).unwrap()
}

fn on_disk(folder: &Path) -> Keys {
    Keys::open(Arc::new(Store::open(folder).unwrap())).unwrap()
}

fn find(keys: &Keys, text: &SecretText) -> Result<Caller, KeyRefusal> {
    keys.find(&PresentedKey::parse(text.expose()).unwrap(), unix_seconds())
}

fn pair(folder: &Folder) -> (Keys, Keys, Watch) {
    let file = folder.file("keys");
    let exporting = keys().exporting(&file).unwrap();
    let importing = keys().importing(&file).unwrap();
    (exporting, importing, Watch::new(&file))
}

#[test]
fn changes_of_one_server_reach_the_other() {
    let folder = Folder::new();
    let (one, two, mut watch) = pair(&folder);
    let operator = Caller::operator();
    assert!(two.is_empty() && two.is_imported() && !one.is_imported());
    let models = ["m*".parse().unwrap()];
    let (record, text) = one.create(&KeyOptions::new("a").group("g").models(models), &operator).unwrap();
    assert_eq!(find(&two, &text).unwrap_err(), KeyRefusal::Unknown);
    let imported = watch.look(&two).unwrap().unwrap();
    assert_eq!((imported.added, imported.changed, imported.removed), (1, 0, 0));
    let caller = find(&two, &text).unwrap();
    assert!(caller.group.as_deref() == Some("g") && caller.may_use("mx") && !caller.may_use("n"));
    assert_eq!(watch.look(&two), Ok(None));
    // An overlap keeps the streams of the old secret, also through changes of other keys.
    let hour = Some(Duration::from_secs(3600));
    let (_, second) = one.rotate(&record.id, hour, &operator).unwrap();
    one.create(&KeyOptions::new("b"), &operator).unwrap();
    let imported = watch.look(&two).unwrap().unwrap();
    assert_eq!((imported.added, imported.changed), (1, 1));
    let later = find(&two, &second).unwrap();
    assert!(find(&two, &text).is_ok() && !caller.revocation.is_revoked());
    // A revocation ends the streams of both secrets.
    one.revoke(&record.id, &operator).unwrap();
    watch.look(&two).unwrap().unwrap();
    assert!(caller.revocation.is_revoked() && later.revocation.is_revoked());
    assert_eq!(find(&two, &second).unwrap_err(), KeyRefusal::Revoked);
    assert_eq!(one.list(&operator).len(), two.list(&operator).len());
}

#[test]
fn a_new_secret_without_an_overlap_ends_streams_everywhere() {
    let folder = Folder::new();
    let (one, two, mut watch) = pair(&folder);
    let operator = Caller::operator();
    let (record, text) = one.create(&KeyOptions::new("a"), &operator).unwrap();
    watch.look(&two).unwrap();
    let stream = find(&two, &text).unwrap();
    let (_, second) = one.rotate(&record.id, None, &operator).unwrap();
    watch.look(&two).unwrap();
    assert!(stream.revocation.is_revoked() && find(&two, &text).is_err() && find(&two, &second).is_ok());
}

#[test]
fn streams_end_where_a_right_is_lost_and_go_on_where_one_is_gained() {
    let folder = Folder::new();
    let (one, two, mut watch) = pair(&folder);
    let options = KeyOptions::new("a").models(["m".parse().unwrap(), "n".parse().unwrap()]);
    let (_, text) = one.create(&options, &Caller::operator()).unwrap();
    watch.look(&two).unwrap();
    let stream = find(&two, &text).unwrap();
    let change = |sequence, models: AllowedModels| {
        let mut records = one.records();
        records[0].grants.models = models;
        two.import(KeyFile { sequence, records }).unwrap().unwrap();
    };
    change(10, AllowedModels::ALL);
    let wider = find(&two, &text).unwrap();
    assert!(!stream.revocation.is_revoked() && wider.may_use("x"));
    change(11, AllowedModels::only(["m".parse().unwrap()]));
    assert!(stream.revocation.is_revoked() && wider.revocation.is_revoked());
    let narrower = find(&two, &text).unwrap();
    assert!(!narrower.may_use("n") && !narrower.revocation.is_revoked());
    // A key that is not in the file any more is unknown.
    two.import(KeyFile { sequence: 12, records: Vec::new() }).unwrap().unwrap();
    assert!(narrower.revocation.is_revoked());
    assert_eq!(find(&two, &text).unwrap_err(), KeyRefusal::Unknown);
}

#[test]
fn importing_servers_refuse_changes_until_they_own_the_keys() {
    let folder = Folder::new();
    let (one, file) = (keys().exporting(&folder.file("keys")).unwrap(), folder.file("keys"));
    let operator = Caller::operator();
    let (record, text) = one.create(&KeyOptions::new("a"), &operator).unwrap();
    let data = folder.file("data");
    let two = on_disk(&data).importing(&file).unwrap();
    let errors = [
        two.create(&KeyOptions::new("b"), &operator).err(),
        two.revoke(&record.id, &operator).err(),
        two.rotate(&record.id, None, &operator).err(),
    ];
    assert!(errors.iter().all(|error| matches!(error, Some(KeyError::Imported))), "{errors:?}");
    drop(two);
    // Commands on the closed database are refused as well.
    assert!(matches!(on_disk(&data).revoke(&record.id, &operator), Err(KeyError::Imported)));
    // The importing server takes over: the others accept its file after that of the first one.
    let three = keys().importing(&file).unwrap();
    let two = on_disk(&data).exporting(&file).unwrap();
    two.revoke(&record.id, &operator).unwrap();
    Watch::new(&file).look(&three).unwrap().unwrap();
    assert_eq!(find(&three, &text).unwrap_err(), KeyRefusal::Revoked);
}

#[test]
fn damage_of_any_kind_is_refused_and_the_keys_stay() {
    let folder = Folder::new();
    let (one, two, mut watch) = pair(&folder);
    let (_, text) = one.create(&KeyOptions::new("ä"), &Caller::operator()).unwrap();
    watch.look(&two).unwrap();
    let file = folder.file("keys");
    let good = fs::read(&file).unwrap();
    for length in 0..good.len() {
        assert!(KeyFile::parse(&good[..length], &file).is_err(), "the first {length} bytes are accepted");
    }
    for (at, bit) in (0..good.len()).flat_map(|at| [1, 4, 128].map(|bit| (at, bit))) {
        let mut bytes = good.clone();
        bytes[at] ^= bit;
        assert!(KeyFile::parse(&bytes, &file).is_err(), "bit {bit} of byte {at} can be changed");
    }
    let mut longer = good.clone();
    longer.extend_from_slice(b"\n");
    assert!(KeyFile::parse(&longer, &file).is_err());
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    let refusal = watch.look(&two).unwrap_err();
    assert!(refusal.contains("damaged"), "{refusal}");
    assert_eq!(watch.look(&two).unwrap_err(), refusal);
    fs::remove_file(&file).unwrap();
    assert!(watch.look(&two).is_err() && find(&two, &text).is_ok());
    fs::write(&file, &good).unwrap();
    assert_eq!(watch.look(&two), Ok(None));
}

#[test]
fn texts_that_are_no_keys_are_refused() {
    let path = Path::new("keys");
    let signed = |text: &str| {
        use sha2::{Digest, Sha256};
        format!("{text}sha256:{}\n", secret::hex(&Sha256::digest(text.as_bytes())))
    };
    let record = |id: &str, name: &str| {
        let mut record = keys().create(&KeyOptions::new("a"), &Caller::operator()).unwrap().0;
        (record.id, record.name) = (id.into(), name.into());
        serde_json::to_string(&record).unwrap() + "\n"
    };
    let (a, b) = ("0123456789abcdef", "1123456789abcdef");
    let head = |keys: usize| format!("{{\"exsa_keys\":1,\"sequence\":1,\"keys\":{keys}}}\n");
    let sound = signed(&(head(2) + &record(a, "a") + &record(b, "b")));
    assert_eq!(KeyFile::parse(sound.as_bytes(), path).unwrap().records.len(), 2);
    for (text, word) in [
        (signed(""), "not a file of keys"),
        (signed("[]\n"), "not a file of keys"),
        (signed("{\"exsa_keys\":2,\"sequence\":1,\"keys\":0}\n"), "version 2"),
        (signed("{\"exsa_keys\":1}\n"), "line 1"),
        (signed(&head(1)), "0 of 1"),
        (signed(&head(200_000)), "100000"),
        (signed(&(head(1) + &record(a, "a") + &record(b, "b"))), "order"),
        (signed(&(head(2) + &record(a, "a") + &record(a, "a"))), "line 3"),
        (signed(&(head(1) + &record("../x", "a"))), "16 hexadecimal"),
        (signed(&(head(1) + &record(a, "a\nb"))), "control characters"),
        (signed(&(head(1) + "{}\n")), "line 2"),
        (head(0), "checksum"),
    ] {
        let error = KeyFile::parse(text.as_bytes(), path).unwrap_err().to_string();
        assert!(error.contains(word), "{error} does not say {word}");
    }
}

#[test]
fn older_files_are_refused_also_after_a_restart() {
    let folder = Folder::new();
    let (file, data) = (folder.file("keys"), folder.file("data"));
    let one = keys().exporting(&file).unwrap();
    let operator = Caller::operator();
    let (record, text) = one.create(&KeyOptions::new("a"), &operator).unwrap();
    let old = fs::read(&file).unwrap();
    one.revoke(&record.id, &operator).unwrap();
    drop(on_disk(&data).importing(&file).unwrap());
    fs::write(&file, &old).unwrap();
    let two = on_disk(&data).importing(&file).unwrap();
    let refusal = Watch::new(&file).look(&two).unwrap_err();
    assert!(refusal.contains("older"), "{refusal}");
    assert_eq!(find(&two, &text).unwrap_err(), KeyRefusal::Revoked);
    // Without the file, a server starts only if it has imported keys before.
    fs::remove_file(&file).unwrap();
    drop(two);
    assert_eq!(on_disk(&data).importing(&file).unwrap().len(), 1);
    assert!(matches!(keys().importing(&file), Err(KeyFileError::Io { .. })));
    // Other keys under the number in use are no newer ones.
    let two = on_disk(&data);
    let conflict = two.import(KeyFile { sequence: two.sequence(), records: Vec::new() });
    assert!(matches!(conflict, Err(KeyFileError::Conflict { .. })), "{conflict:?}");
}

#[test]
fn keys_of_its_own_are_not_removed_by_an_import() {
    let folder = Folder::new();
    let file = folder.file("keys");
    keys().exporting(&file).unwrap();
    let own = keys();
    own.create(&KeyOptions::new("own"), &Caller::operator()).unwrap();
    assert!(matches!(own.importing(&file), Err(KeyFileError::OwnKeys)));
}

#[test]
fn the_file_goes_on_from_the_one_that_is_there() {
    let folder = Folder::new();
    let (file, data) = (folder.file("keys"), folder.file("data"));
    let sequence = || KeyFile::read(&file).unwrap().sequence;
    let operator = Caller::operator();
    let one = on_disk(&data).exporting(&file).unwrap();
    assert_eq!(sequence(), 0);
    for name in ["a", "b", "c"] {
        one.create(&KeyOptions::new(name), &operator).unwrap();
    }
    assert_eq!(sequence(), 3);
    drop(one);
    // A change by a command while no server runs is exported at the next start.
    on_disk(&data).create(&KeyOptions::new("d"), &operator).unwrap();
    drop(on_disk(&data).exporting(&file).unwrap());
    assert_eq!((sequence(), KeyFile::read(&file).unwrap().records.len()), (4, 4));
    drop(on_disk(&data).exporting(&file).unwrap());
    assert_eq!(sequence(), 4);
    // Another database, as one that was restored, is newer than the file.
    let other = keys().exporting(&file).unwrap();
    assert_eq!((sequence(), KeyFile::read(&file).unwrap().records.len()), (5, 0));
    drop(other);
    fs::write(&file, "a letter").unwrap();
    assert!(matches!(keys().exporting(&file), Err(KeyFileError::Foreign { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"a letter");
}

#[test]
fn a_failed_export_is_told_and_repeated() {
    let folder = Folder::new();
    let shared = folder.file("shared");
    fs::create_dir(&shared).unwrap();
    let file = shared.join("keys");
    let one = Arc::new(keys().exporting(&file).unwrap());
    one.start().unwrap();
    let operator = Caller::operator();
    let (record, text) = one.create(&KeyOptions::new("a"), &operator).unwrap();
    fs::remove_dir_all(&shared).unwrap();
    assert!(matches!(one.revoke(&record.id, &operator), Err(KeyError::Export(_))));
    assert_eq!(find(&one, &text).unwrap_err(), KeyRefusal::Revoked);
    fs::create_dir(&shared).unwrap();
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the export is not repeated");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(KeyFile::read(&file).unwrap().records[0].revoked.is_some());
}

#[cfg(unix)]
#[test]
fn the_file_is_private_and_swaps_of_links_are_seen() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new();
    let (one, two, _) = pair(&folder);
    let operator = Caller::operator();
    let file = folder.file("keys");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // As a volume of Kubernetes: keys -> ..data/keys, ..data -> a folder of each version.
    let mount = folder.file("mount");
    let version = |name: &str| {
        let version = mount.join(name);
        fs::create_dir_all(&version).unwrap();
        fs::copy(&file, version.join("keys")).unwrap();
        symlink(name, mount.join("..new")).unwrap();
        fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    };
    version("..1");
    symlink("..data/keys", mount.join("keys")).unwrap();
    let mut watch = Watch::new(&mount.join("keys"));
    watch.look(&two).unwrap();
    let (record, text) = one.create(&KeyOptions::new("a"), &operator).unwrap();
    version("..2");
    assert_eq!(watch.look(&two).unwrap().unwrap().added, 1);
    one.revoke(&record.id, &operator).unwrap();
    version("..3");
    assert_eq!(watch.look(&two).unwrap().unwrap().changed, 1);
    assert_eq!(find(&two, &text).unwrap_err(), KeyRefusal::Revoked);
    // Keys that every user can write are not taken.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(KeyFile::read(&file), Err(KeyFileError::Permissions { mode: 0o666, .. })));
}

#[test]
fn a_change_is_seen_that_leaves_size_and_time_as_they_were() {
    let folder = Folder::new();
    let (one, two, mut watch) = pair(&folder);
    let operator = Caller::operator();
    let file = folder.file("keys");
    let (a, _) = one.create(&KeyOptions::new("a"), &operator).unwrap();
    // A time that stays fresh, however slow this test is.
    let time = std::time::SystemTime::now() + Duration::from_secs(3600);
    let set_time = || fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    set_time();
    watch.look(&two).unwrap();
    let mut records = one.records();
    records[0].name = "b".into();
    let text = KeyFile { sequence: 2, records }.text().unwrap();
    assert_eq!(text.len() as u64, fs::metadata(&file).unwrap().len());
    fs::write(&file, text).unwrap();
    set_time();
    assert_eq!(watch.look(&two).unwrap().unwrap().changed, 1);
    assert_eq!(two.list(&operator)[0].name, "b");
    assert_eq!(two.list(&operator)[0].id, a.id);
}

#[test]
fn the_watch_runs_by_itself() {
    let folder = Folder::new();
    let (one, two, _) = pair(&folder);
    let two = Arc::new(two);
    two.start().unwrap();
    let (_, text) = one.create(&KeyOptions::new("a"), &Caller::operator()).unwrap();
    let begun = Instant::now();
    while find(&two, &text).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the change is not seen");
        std::thread::sleep(Duration::from_millis(20));
    }
}
