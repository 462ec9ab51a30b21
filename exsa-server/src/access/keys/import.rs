//! Imports keys that another server exports.
//!
//! The keys are stored in the server's own database: it starts with the last imported ones, and refuses an
//! older file after a restart too.

use super::file::{KeyFile, KeyFileError};
use super::{Entry, IMPORTED, KEYS, Keys, SEQUENCE, SET, Secret};
use crate::access::grants::Grants;
use crate::access::record::KeyRecord;
use crate::access::store::StoreError;
use redb::Durability;
use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Counts of an import's changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Imported {
    pub(super) sequence: u64,
    pub(super) added: usize,
    pub(super) changed: usize,
    pub(super) removed: usize,
}

impl Keys {
    /// Imports the keys of a file. Keys that are revoked, have no secret or are not in the file are refused
    /// from now on, and their running streams end; so do streams of keys that lost a right. Returns `None` if
    /// nothing changes.
    ///
    /// # Errors
    ///
    /// The file is older than the keys in use, the data folder has its own keys, or the database failed;
    /// nothing changes.
    pub(super) fn import(&self, file: KeyFile) -> Result<Option<Imported>, KeyFileError> {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_imported() && !self.is_empty() {
            return Err(KeyFileError::OwnKeys);
        }
        let KeyFile { sequence, records } = file;
        let current = self.sequence();
        if self.is_imported() && sequence < current {
            return Err(KeyFileError::Older { found: sequence, current });
        }
        let mut counts = Imported { sequence, ..Imported::default() };
        let mut rows = Vec::new();
        for record in &records {
            let new = row(record)?;
            let old = self.read(|entries| entries.get(&record.id).map(|entry| row(&entry.record)));
            match old.transpose()? {
                None => counts.added += 1,
                Some(old) if old != new => counts.changed += 1,
                Some(_) => continue,
            }
            rows.push((record.id.clone(), new));
        }
        counts.removed = self.len() + counts.added - records.len();
        let is_same = rows.is_empty() && counts.removed == 0;
        if self.is_imported() && sequence == current {
            return if is_same { Ok(None) } else { Err(KeyFileError::Conflict { sequence }) };
        }
        let records: HashMap<String, KeyRecord> =
            records.into_iter().map(|record| (record.id.clone(), record)).collect();
        self.store_imported(sequence, &records, &rows)?;
        self.replace(records);
        Ok(Some(counts))
    }

    fn store_imported(
        &self,
        sequence: u64,
        records: &HashMap<String, KeyRecord>,
        rows: &[(String, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let mut write = self.store.database().begin_write()?;
        write.set_durability(Durability::Immediate)?;
        write.set_two_phase_commit(true);
        {
            let mut table = write.open_table(KEYS)?;
            table.retain(|id, _| records.contains_key(id))?;
            for (id, row) in rows {
                table.insert(id.as_str(), row.as_slice())?;
            }
            let mut set = write.open_table(SET)?;
            set.insert(SEQUENCE, sequence)?;
            set.insert(IMPORTED, 1)?;
        }
        write.commit()?;
        self.sequence.store(sequence, Ordering::Release);
        self.is_imported.store(true, Ordering::Release);
        Ok(())
    }

    /// Replaces all entries by records.
    fn replace(&self, records: HashMap<String, KeyRecord>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *entries);
        for (id, record) in records {
            let mut entry = Entry::new(record);
            if let Some(old) = old.remove(&id) {
                entry.succeed(old);
            }
            entries.insert(id, entry);
        }
        drop(entries);
        old.into_values().for_each(Entry::revoke);
    }
}

impl Entry {
    /// Takes over the streams of secrets that stay valid with at least the same rights; all others end.
    fn succeed(&mut self, old: Self) {
        let is_valid = self.record.revoked.is_none();
        // A quota is not a right, and applies to the streams of either record.
        let rights = |grants: &Grants| Grants { quota: None, ..grants.clone() };
        let has_rights = rights(&self.record.grants).check_covers(&rights(&old.record.grants)).is_ok();
        for Secret { hash, revoker, .. } in [Some(old.current), old.previous].into_iter().flatten() {
            let mut secrets = [Some(&mut self.current), self.previous.as_mut()].into_iter().flatten();
            match secrets.find(|secret| secret.hash.matches(&hash)) {
                Some(secret) if is_valid && has_rights => {
                    secret.caller.revocation = revoker.revocation();
                    secret.revoker = revoker;
                }
                _ => revoker.revoke(),
            }
        }
    }

    fn revoke(self) {
        let secrets = [Some(self.current), self.previous].into_iter().flatten();
        secrets.for_each(|secret| secret.revoker.revoke());
    }
}

/// Serializes a record for the database.
fn row(record: &KeyRecord) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|source| StoreError::Record { id: record.id.clone(), source })
}
