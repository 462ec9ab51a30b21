//! A folder in memory that fails on demand, and loses what was not synced.

use crate::audit::folder::{Folder, LogFile};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Bytes of the file that survive a crash: those at the last sync.
    pub(super) synced: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<String, Content>,
    /// Operations until all fail; `None` for a disk that does not fail.
    pub(super) fails_after: Option<u64>,
    /// Bytes of a failing write that are written nevertheless.
    pub(super) torn: usize,
    /// Bytes that the disk can hold.
    pub(super) capacity: Option<usize>,
    pub(super) operations: u64,
}

/// The folder. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(pub(super) Arc<Mutex<State>>);

pub(super) struct DiskFile(Disk, String);

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.fails_after {
            Some(0) => Err(io::Error::other("the disk fails")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk {
    /// The disk after a crash: of each file the synced bytes, and `kept` bytes of what was appended since.
    pub(super) fn crashed(&self, kept: usize) -> Self {
        let state = self.0.lock();
        let files = state.files.iter().map(|(name, content)| {
            let Content { bytes, synced } = content;
            let survives = match bytes.strip_prefix(&synced[..]) {
                Some(rest) => [synced, &rest[..kept.min(rest.len())]].concat(),
                None => synced.clone(),
            };
            (name.clone(), Content { bytes: survives.clone(), synced: survives })
        });
        let files = files.collect();
        Self(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    /// The log's files in their order.
    pub(super) fn log(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.0.lock();
        let logs = state.files.iter().filter(|(name, _)| name.ends_with(".jsonl"));
        logs.map(|(name, content)| (name.clone(), content.bytes.clone())).collect()
    }

    pub(super) fn text(&self) -> String {
        self.log().into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
    }
}

impl Folder for Disk {
    type File = DiskFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(Cursor::new(self.0.lock().files[name].bytes.clone())))
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        let mut state = self.0.lock();
        state.step()?;
        state.files.insert(name.to_owned(), Content::default());
        Ok(DiskFile(self.clone(), name.to_owned()))
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        Ok(DiskFile(self.clone(), name.to_owned()))
    }
}

impl LogFile for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.0.lock();
        let mut result = state.step();
        let used: usize = state.files.values().map(|content| content.bytes.len()).sum();
        let mut written = if result.is_ok() { bytes.len() } else { state.torn.min(bytes.len()) };
        if let Some(capacity) = state.capacity
            && used + written > capacity
        {
            written = capacity.saturating_sub(used);
            result = Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        let content = state.files.get_mut(&self.1).unwrap();
        content.bytes.extend_from_slice(&bytes[..written]);
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.step()?;
        let content = state.files.get_mut(&self.1).unwrap();
        content.synced.clone_from(&content.bytes);
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.step()?;
        state.files.get_mut(&self.1).unwrap().bytes.truncate(len as usize);
        Ok(())
    }
}
