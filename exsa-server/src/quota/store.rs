//! The quota table in the shared database.

use super::account::Saving;
use super::error::QuotaError;
use super::ledger::{Account, Ledger};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fmt;
use std::sync::Arc;

/// Account states in JSON, by owner: `key:ID` or `group:NAME`.
const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("quota_accounts");

/// The table.
#[derive(Clone)]
pub(super) struct Store(Arc<Database>);

impl Store {
    /// Opens the table, creating it if missing.
    pub(super) fn open(database: Arc<Database>) -> Result<Self, QuotaError> {
        let store = Self(database);
        store.make().map_err(QuotaError::Store)?;
        Ok(store)
    }

    fn make(&self) -> Result<(), redb::Error> {
        let write = self.0.begin_write()?;
        write.open_table(TABLE)?;
        Ok(write.commit()?)
    }

    /// Reads all accounts.
    pub(super) fn load(&self, now: u64) -> Result<Ledger, QuotaError> {
        let mut ledger = Ledger::default();
        for (scope, state) in self.read().map_err(QuotaError::Store)? {
            let saved = serde_json::from_slice(&state);
            let saved = saved.map_err(|source| QuotaError::Record { scope: scope.clone(), source })?;
            let account = scope.parse().map_err(|()| QuotaError::Scope(scope))?;
            ledger.load(account, &saved, now);
        }
        Ok(ledger)
    }

    fn read(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let mut states = Vec::new();
        for entry in table.iter()? {
            let (scope, state) = entry?;
            states.push((scope.value().to_owned(), state.value().to_owned()));
        }
        Ok(states)
    }

    /// Writes states durably and atomically.
    pub(super) fn save(&self, savings: &[(Account, Option<Saving>)]) -> Result<(), redb::Error> {
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for (account, saving) in savings {
                let scope = account.to_string();
                match saving {
                    Some(saving) => {
                        // Structs of numbers can always be serialized.
                        let state = serde_json::to_vec(&saving.saved).unwrap_or_default();
                        table.insert(scope.as_str(), state.as_slice())?;
                    }
                    None => drop(table.remove(scope.as_str())?),
                }
            }
        }
        Ok(write.commit()?)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}
