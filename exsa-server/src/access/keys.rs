//! API keys: records in the database, with a copy of all of them in memory.
//!
//! A change is durable before it is acknowledged, and takes effect in memory before the call returns. Servers
//! can share keys: one exports them to a file, others import it.

mod export;
mod file;
mod import;
#[cfg(test)]
mod sharing;
mod watch;

pub(crate) use export::check_path;
pub(crate) use file::KeyFile;
pub use file::KeyFileError;

use super::caller::Caller;
use super::events::{AccessEvent, Observer};
use super::grants::GrantError;
use super::record::{KeyOptionError, KeyOptions, KeyRecord, PreviousSecret};
use super::revocation::Revoker;
use super::secret::{self, NoRandomness, PresentedKey, SecretHash, SecretText};
use super::store::{Store, StoreError};
use crate::state::unix_seconds;
use export::Export;
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Maximum records, so that callers with the scope `keys` cannot fill the memory.
const KEYS_MAX: usize = 100_000;

const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");

/// Counters of the key set.
const SET: TableDefinition<'_, &str, u64> = TableDefinition::new("key_set");

/// Number of changes of the set.
const SEQUENCE: &str = "sequence";

/// 1 while the keys are imported.
const IMPORTED: &str = "imported";

/// A change of keys that was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// An option is invalid.
    #[error(transparent)]
    Option(#[from] KeyOptionError),
    /// The caller cannot grant a right.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The new key would outlive the caller's own key.
    #[error("expires_in: the key must expire no later than the key that makes it")]
    Outlives,
    /// No key has this id, or the caller may not manage it.
    #[error("there is no key '{id}'")]
    Unknown {
        /// The id.
        id: String,
    },
    /// A revoked or expired key cannot be rotated.
    #[error("the key '{id}' is revoked or expired and cannot be rotated")]
    NotValid {
        /// The key's id.
        id: String,
    },
    /// There are too many keys.
    #[error("there are {KEYS_MAX} keys, the maximum")]
    TooMany,
    /// The keys are imported from another server.
    #[error("this server imports its keys; change them on the server that exports them")]
    Imported,
    /// The change is in force only on this server so far.
    #[error("the change holds here; its export to other servers failed and is repeated: {0}")]
    Export(#[from] KeyFileError),
    /// The system returned no random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reason why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    Unknown,
    Revoked,
    Expired,
}

/// A secret that is valid for a key.
#[derive(Debug)]
struct Secret {
    hash: SecretHash,
    /// Unix time at which it expires.
    until: Option<u64>,
    caller: Caller,
    revoker: Arc<Revoker>,
}

/// A record with its secrets: the current one and, during the overlap of a rotation, the previous one.
#[derive(Debug)]
struct Entry {
    record: KeyRecord,
    current: Secret,
    previous: Option<Secret>,
}

impl Entry {
    fn new(record: KeyRecord) -> Self {
        let revoker = Arc::new(Revoker::new(record.revoked.is_some()));
        let caller = Caller::new(&record.id, &record.grants, record.expires, revoker.revocation());
        let previous = record.previous.as_ref().map(|previous| {
            let revoker = Arc::new(Revoker::new(record.revoked.is_some()));
            let caller = Caller { revocation: revoker.revocation(), ..caller.clone() };
            Secret { hash: previous.hash, until: Some(previous.until), caller, revoker }
        });
        let current = Secret { hash: record.hash, until: None, caller, revoker };
        Self { record, current, previous }
    }
}

/// The API keys of a server.
#[derive(Debug)]
pub struct Keys {
    store: Arc<Store>,
    entries: RwLock<HashMap<String, Entry>>,
    /// Locked by changes, from reading a record until its new form is in memory.
    changes: Mutex<()>,
    observer: Observer,
    /// Number of changes, also stored in the database.
    sequence: AtomicU64,
    is_imported: AtomicBool,
    export: Option<Export>,
    import: Option<PathBuf>,
}

impl Keys {
    /// Reads all records.
    ///
    /// # Errors
    ///
    /// The database fails, or a record cannot be read.
    pub fn open(store: Arc<Store>) -> Result<Self, StoreError> {
        let mut entries = HashMap::new();
        let read = store.database().begin_read()?;
        match read.open_table(KEYS) {
            Ok(table) => {
                for row in table.iter()? {
                    let (id, record) = row?;
                    let id = id.value().to_owned();
                    let record = serde_json::from_slice(record.value())
                        .map_err(|source| StoreError::Record { id: id.clone(), source })?;
                    entries.insert(id, Entry::new(record));
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let (mut sequence, mut is_imported) = (0, false);
        match read.open_table(SET) {
            Ok(table) => {
                sequence = table.get(SEQUENCE)?.map_or(0, |number| number.value());
                is_imported = table.get(IMPORTED)?.is_some_and(|number| number.value() != 0);
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        drop(read);
        Ok(Self {
            store,
            entries: RwLock::new(entries),
            changes: Mutex::new(()),
            observer: Observer::default(),
            sequence: sequence.into(),
            is_imported: is_imported.into(),
            export: None,
            import: None,
        })
    }

    /// Takes ownership of the keys: imported keys can be changed from now on.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub fn owned(self) -> Result<Self, StoreError> {
        self.own(self.sequence())?;
        Ok(self)
    }

    /// Starts the threads that watch the imported file and retry failed exports; they end with the keys.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        export::repeat(self)?;
        watch::follow(self)
    }

    /// Returns whether the keys are imported, so that they cannot be changed here.
    pub fn is_imported(&self) -> bool {
        self.is_imported.load(Ordering::Acquire)
    }

    /// Number of changes so far; for imported keys, that of the exporting server.
    fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// Stores the number of changes, and that the keys are this server's own.
    fn own(&self, sequence: u64) -> Result<(), StoreError> {
        if !self.is_imported() && sequence == self.sequence() {
            return Ok(());
        }
        let mut write = self.store.database().begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut set = write.open_table(SET)?;
            set.insert(SEQUENCE, sequence)?;
            set.insert(IMPORTED, 0)?;
        }
        write.commit()?;
        self.sequence.store(sequence, Ordering::Release);
        self.is_imported.store(false, Ordering::Release);
        Ok(())
    }

    /// All records, ordered by id.
    fn records(&self) -> Vec<KeyRecord> {
        let mut records: Vec<_> =
            self.read(|entries| entries.values().map(|entry| entry.record.clone()).collect());
        records.sort_by(|a, b| a.id.cmp(&b.id));
        records
    }

    /// Refuses changes of imported keys.
    fn check_owned(&self) -> Result<(), KeyError> {
        if self.is_imported() { Err(KeyError::Imported) } else { Ok(()) }
    }

    /// The database.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Sets a function that is called with each change before it is acknowledged. Only the first call has an
    /// effect.
    pub fn observe(&self, observer: impl Fn(&AccessEvent<'_>) + Send + Sync + 'static) {
        self.observer.set(observer);
    }

    /// Passes an event to the observer.
    pub(super) fn tell(&self, event: &AccessEvent<'_>) {
        self.observer.tell(event);
    }

    /// Number of records, revoked ones included.
    pub fn len(&self) -> usize {
        self.read(HashMap::len)
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the caller of a key.
    pub(crate) fn find(&self, key: &PresentedKey<'_>, now: u64) -> Result<Caller, KeyRefusal> {
        self.read(|entries| {
            let entry = entries.get(key.id).ok_or(KeyRefusal::Unknown)?;
            let secrets = std::iter::once(&entry.current).chain(&entry.previous);
            // The reason is only revealed to holders of the secret.
            let secret = secrets.into_iter().find(|secret| secret.hash.matches(&key.hash));
            let secret = secret.ok_or(KeyRefusal::Unknown)?;
            if entry.record.revoked.is_some() || secret.caller.revocation.is_revoked() {
                return Err(KeyRefusal::Revoked);
            }
            let expired = secret.until.is_some_and(|until| now >= until);
            if expired || !entry.record.is_valid(now) {
                return Err(KeyRefusal::Expired);
            }
            Ok(secret.caller.clone())
        })
    }

    /// Records that `by` may manage, oldest first: those whose rights it has itself.
    pub fn list(&self, by: &Caller) -> Vec<KeyRecord> {
        let mut records: Vec<KeyRecord> = self.read(|entries| {
            let records = entries.values().map(|entry| &entry.record);
            records.filter(|record| may_manage(by, record)).cloned().collect()
        });
        records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        records
    }

    /// Creates a key. Its text is not stored and cannot be shown again.
    ///
    /// # Errors
    ///
    /// An option is invalid, `by` cannot grant a right, or the database failed.
    pub fn create(&self, options: &KeyOptions, by: &Caller) -> Result<(KeyRecord, SecretText), KeyError> {
        self.check_owned()?;
        let grants = options.grants()?;
        by.grants().check_grant(&grants)?;
        let now = unix_seconds();
        let expires = options.expires_in.map(|time| now.saturating_add(time.as_secs()));
        // Tokens live for minutes and represent users, whose keys may last; a key created by a key must not
        // outlive it.
        let limit = by.expires.filter(|_| !by.is_token());
        if limit.is_some_and(|limit| expires.is_none_or(|expires| expires > limit)) {
            return Err(KeyError::Outlives);
        }
        let id = secret::new_id()?;
        let text = SecretText::generate(&id)?;
        let record = KeyRecord {
            id,
            name: options.name.clone(),
            grants,
            created: now,
            created_by: by.id.to_string(),
            expires,
            revoked: None,
            rotated: None,
            hash: SecretHash::of(text.expose()),
            previous: None,
        };
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_owned()?;
        if self.len() >= KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        self.write(&record)?;
        self.insert(Entry::new(record.clone()));
        self.publish_logged();
        self.tell(&AccessEvent::KeyCreated { key: &record, by });
        Ok((record, text))
    }

    /// Revokes a key: it is refused from now on and its running streams end. Revoking it again has no effect.
    ///
    /// # Errors
    ///
    /// No such key that `by` may manage, the database failed, or the keys could not be exported; in the last
    /// case the key is revoked here, and the export is retried.
    pub fn revoke(&self, id: &str, by: &Caller) -> Result<KeyRecord, KeyError> {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_owned()?;
        let mut record = self.managed(id, by)?;
        if record.revoked.is_some() {
            self.publish_rest()?;
            return Ok(record);
        }
        record.revoked = Some(unix_seconds());
        record.previous = None;
        self.write(&record)?;
        if let Some(old) = self.insert(Entry::new(record.clone())) {
            old.current.revoker.revoke();
            old.previous.iter().for_each(|secret| secret.revoker.revoke());
        }
        self.tell(&AccessEvent::KeyRevoked { key: &record, by });
        self.publish()?;
        Ok(record)
    }

    /// Creates a new secret for a key. The old one stays valid for `overlap`; without an overlap it is
    /// refused from now on and its running streams end.
    ///
    /// # Errors
    ///
    /// No such key that `by` may manage, the key is not valid, or the database failed.
    pub fn rotate(
        &self,
        id: &str,
        overlap: Option<Duration>,
        by: &Caller,
    ) -> Result<(KeyRecord, SecretText), KeyError> {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_owned()?;
        let mut record = self.managed(id, by)?;
        let now = unix_seconds();
        if !record.is_valid(now) {
            return Err(KeyError::NotValid { id: record.id });
        }
        let text = SecretText::generate(&record.id)?;
        let overlap = overlap.filter(|time| !time.is_zero());
        record.previous = overlap.map(|time| PreviousSecret {
            hash: record.hash,
            until: now.saturating_add(time.as_secs().max(1)),
        });
        (record.hash, record.rotated) = (SecretHash::of(text.expose()), Some(now));
        self.write(&record)?;
        let mut entry = Entry::new(record.clone());
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = entries.remove(&record.id) {
            // Streams of the secret that stays valid watch its revoker, so it must be kept.
            match &mut entry.previous {
                Some(previous) => {
                    (previous.caller, previous.revoker) = (old.current.caller, old.current.revoker);
                }
                None => old.current.revoker.revoke(),
            }
            old.previous.iter().for_each(|secret| secret.revoker.revoke());
        }
        entries.insert(record.id.clone(), entry);
        drop(entries);
        self.publish_logged();
        self.tell(&AccessEvent::KeyRotated { key: &record, by });
        Ok((record, text))
    }

    /// Returns the record of a key that `by` may manage. Other keys are reported like nonexistent ones.
    fn managed(&self, id: &str, by: &Caller) -> Result<KeyRecord, KeyError> {
        let record = self.read(|entries| entries.get(id).map(|entry| entry.record.clone()));
        let unknown = || KeyError::Unknown { id: id.chars().take(64).collect() };
        record.filter(|record| may_manage(by, record)).ok_or_else(unknown)
    }

    fn write(&self, record: &KeyRecord) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(record)
            .map_err(|source| StoreError::Record { id: record.id.clone(), source })?;
        let mut write = self.store.database().begin_write()?;
        write.set_durability(Durability::Immediate)?;
        // Names and models come from clients. Two phases keep a commit consistent even if its checksums are
        // forged.
        write.set_two_phase_commit(true);
        write.open_table(KEYS)?.insert(record.id.as_str(), bytes.as_slice())?;
        let sequence = self.sequence().saturating_add(1);
        write.open_table(SET)?.insert(SEQUENCE, sequence)?;
        write.commit()?;
        self.sequence.store(sequence, Ordering::Release);
        Ok(())
    }

    fn insert(&self, entry: Entry) -> Option<Entry> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(entry.record.id.clone(), entry)
    }

    fn read<T>(&self, read: impl FnOnce(&HashMap<String, Entry>) -> T) -> T {
        read(&self.entries.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns whether a caller may see, revoke and rotate a key: it must have all its rights, so that a new
/// secret cannot give it more.
fn may_manage(by: &Caller, record: &KeyRecord) -> bool {
    *by.id == *record.id || by.grants().check_covers(&record.grants).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Scope;
    use redb::backends::InMemoryBackend;

    fn keys() -> Keys {
        Keys::open(Arc::new(Store::with_backend(InMemoryBackend::new()).unwrap())).unwrap()
    }

    fn find(keys: &Keys, text: &SecretText) -> Result<Caller, KeyRefusal> {
        find_at(keys, text, unix_seconds())
    }

    fn find_at(keys: &Keys, text: &SecretText, now: u64) -> Result<Caller, KeyRefusal> {
        keys.find(&PresentedKey::parse(text.expose()).unwrap(), now)
    }

    #[test]
    fn a_key_is_its_caller_until_it_is_revoked() {
        let (keys, operator) = (keys(), Caller::operator());
        let (record, text) = keys.create(&KeyOptions::new("a").group("g"), &operator).unwrap();
        let caller = find(&keys, &text).unwrap();
        assert_eq!((&*caller.id, caller.group.as_deref()), (record.id.as_str(), Some("g")));
        let other = SecretText::generate(&record.id).unwrap();
        assert_eq!(find(&keys, &other).unwrap_err(), KeyRefusal::Unknown);
        let revoked = keys.revoke(&record.id, &operator).unwrap();
        assert!(caller.revocation.is_revoked());
        assert_eq!(find(&keys, &text).unwrap_err(), KeyRefusal::Revoked);
        assert_eq!(find(&keys, &other).unwrap_err(), KeyRefusal::Unknown);
        assert_eq!(keys.revoke(&record.id, &operator).unwrap().revoked, revoked.revoked);
        assert!(matches!(keys.rotate(&record.id, None, &operator), Err(KeyError::NotValid { .. })));
    }

    #[test]
    fn keys_expire() {
        let (keys, operator) = (keys(), Caller::operator());
        let options = KeyOptions::new("a").expires_in(Duration::from_secs(60));
        let (record, text) = keys.create(&options, &operator).unwrap();
        let expires = record.expires.unwrap();
        assert!(find_at(&keys, &text, expires - 1).is_ok());
        assert_eq!(find_at(&keys, &text, expires).unwrap_err(), KeyRefusal::Expired);
    }

    #[test]
    fn the_secret_before_a_rotation_is_valid_during_the_overlap_alone() {
        let (keys, operator) = (keys(), Caller::operator());
        let (record, first) = keys.create(&KeyOptions::new("a"), &operator).unwrap();
        let stream = find(&keys, &first).unwrap();
        let hour = Duration::from_secs(3600);
        let (_, second) = keys.rotate(&record.id, Some(hour), &operator).unwrap();
        let now = unix_seconds();
        assert!(find(&keys, &first).is_ok() && find(&keys, &second).is_ok());
        assert_eq!(find_at(&keys, &first, now + 3601).unwrap_err(), KeyRefusal::Expired);
        assert!(find_at(&keys, &second, now + 3601).is_ok() && !stream.revocation.is_revoked());
        // A second rotation without an overlap ends both older secrets.
        let later = find(&keys, &second).unwrap();
        let (_, third) = keys.rotate(&record.id, None, &operator).unwrap();
        assert!(stream.revocation.is_revoked() && later.revocation.is_revoked());
        assert!(find(&keys, &first).is_err() && find(&keys, &second).is_err() && find(&keys, &third).is_ok());
        // A revocation reaches streams of the previous secret too.
        let stream = find(&keys, &third).unwrap();
        keys.rotate(&record.id, Some(hour), &operator).unwrap();
        keys.revoke(&record.id, &operator).unwrap();
        assert!(stream.revocation.is_revoked());
    }

    #[test]
    fn records_outlive_the_process() {
        let folder = std::env::temp_dir().join(format!("exsa-keys-{}", secret::new_id().unwrap()));
        let operator = Caller::operator();
        let open = || Keys::open(Arc::new(Store::open(&folder).unwrap())).unwrap();
        let keys = open();
        let models = ["m*".parse().unwrap()];
        let (record, first) = keys.create(&KeyOptions::new("a").models(models), &operator).unwrap();
        let (_, second) = keys.rotate(&record.id, Some(Duration::from_secs(60)), &operator).unwrap();
        let (other, revoked) = keys.create(&KeyOptions::new("b"), &operator).unwrap();
        keys.revoke(&other.id, &operator).unwrap();
        assert!(matches!(Store::open(&folder), Err(StoreError::InUse { .. })));
        drop(keys);
        let keys = open();
        let caller = find(&keys, &first).unwrap();
        assert!(caller.may_use("mx") && !caller.may_use("n"));
        assert!(find(&keys, &second).is_ok());
        assert_eq!(find(&keys, &revoked).unwrap_err(), KeyRefusal::Revoked);
        assert_eq!(keys.list(&operator).len(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn callers_manage_only_keys_that_they_could_have_made() {
        let (keys, operator) = (keys(), Caller::operator());
        let manager = KeyOptions::new("m").scopes([Scope::Infer, Scope::Keys]).group("team");
        let (own, text) = keys.create(&manager, &operator).unwrap();
        let manager = find(&keys, &text).unwrap();
        let (admin, _) = keys.create(&KeyOptions::new("admin").scopes(Scope::ALL), &operator).unwrap();
        let (child, _) = keys.create(&KeyOptions::new("c").group("team"), &manager).unwrap();
        assert_eq!(child.created_by, own.id);
        for result in [keys.revoke(&admin.id, &manager).err(), keys.rotate(&admin.id, None, &manager).err()] {
            assert!(matches!(result, Some(KeyError::Unknown { .. })), "{result:?}");
        }
        let listed: Vec<_> = keys.list(&manager).into_iter().map(|record| record.name).collect();
        assert!(listed.contains(&"m".to_owned()) && listed.contains(&"c".to_owned()) && listed.len() == 2);
        assert!(matches!(keys.create(&KeyOptions::new("x"), &manager), Err(KeyError::Grant(_))));
        keys.revoke(&child.id, &manager).unwrap();
    }

    #[test]
    fn keys_do_not_outlive_the_key_that_makes_them() {
        let (keys, operator) = (keys(), Caller::operator());
        let hour = Duration::from_secs(3600);
        let options = KeyOptions::new("m").scopes([Scope::Infer, Scope::Keys]).expires_in(hour);
        let manager = find(&keys, &keys.create(&options, &operator).unwrap().1).unwrap();
        assert!(matches!(keys.create(&KeyOptions::new("x"), &manager), Err(KeyError::Outlives)));
        let day = KeyOptions::new("x").expires_in(24 * hour);
        assert!(matches!(keys.create(&day, &manager), Err(KeyError::Outlives)));
        assert!(keys.create(&KeyOptions::new("x").expires_in(hour / 2), &manager).is_ok());
    }
}
