//! Events of the prefix cache, for a host that watches it.

use super::EngineLoop;
use crate::cache_events::LogWriter;

impl EngineLoop {
    /// Announces all cached blocks to the reader of `writer`, and further changes from now on.
    pub(super) fn watch_for(&mut self, writer: LogWriter) {
        writer.log().announce(self.scheduler.record_blocks());
        writer.replace(&mut self.cache_watch);
    }

    /// Passes the changes of cached blocks to the reader.
    pub(super) fn publish_cache_events(&mut self) {
        let Some(writer) = &self.cache_watch else { return };
        if !writer.is_read() {
            self.cache_watch = None;
            return self.scheduler.stop_recording_blocks();
        }
        let mut events = self.scheduler.drain_block_events();
        if !events.is_empty() {
            writer.log().push(&mut events);
        }
    }
}
