//! A backend that only reads files in the configured folders.

use super::folders::Folders;
use exsa_core::backend::{
    DeviceInfo, InferenceBackend, LoadOptions, LoadProgress, MemoryEstimate, Model, ModelSource,
    SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::split_paths;
use exsa_core::model_info::ModelInfo;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Checks each file when it is read: at every inspection, estimate and load.
pub(super) struct GuardedBackend {
    pub(super) inner: Arc<dyn InferenceBackend>,
    pub(super) folders: Arc<Folders>,
}

impl GuardedBackend {
    fn guarded<T>(
        &self,
        source: &ModelSource,
        read: impl FnOnce(&ModelSource) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let ModelSource::File(path) = source else { return read(source) };
        if let Some(parts) = split_paths(path) {
            let open =
                |part: &PathBuf| self.folders.open(part).map_err(|source| self.unreadable(part, source));
            let opened = parts.iter().map(open).collect::<Result<Vec<_>, _>>()?;
            let paths = opened.iter().map(|opened| opened.path.clone()).collect();
            return read(&ModelSource::Files(paths)).map_err(|error| match error {
                LoadError::Io { source, .. } => self.unreadable(path, source),
                error => error,
            });
        }
        let opened = self.folders.open(path).map_err(|source| self.unreadable(path, source))?;
        read(&ModelSource::file(&opened.path)).map_err(|error| match error {
            LoadError::Io { source, .. } => self.unreadable(path, source),
            error => error,
        })
    }

    /// Creates an error that names the file relative to its folder, since clients must not learn where the
    /// folders are.
    fn unreadable(&self, path: &Path, source: io::Error) -> LoadError {
        LoadError::Io { path: self.folders.shown(path), source }
    }
}

impl InferenceBackend for GuardedBackend {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.inner.devices()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        self.guarded(source, |source| self.inner.inspect(source))
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        self.guarded(source, |source| self.inner.load(source, options, progress))
    }

    fn prepare(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<(), LoadError> {
        self.guarded(source, |source| self.inner.prepare(source, options, progress))
    }

    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        session: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        self.guarded(source, |source| self.inner.estimate(source, load, session))
    }
}
