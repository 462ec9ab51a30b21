//! Models fetched by administrators, in a separate folder.

use super::ModelsError;
use super::catalog::Models;
use super::folders::Folders;
use super::name;
use crate::config::PullConfig;
use exsa_hub::{Cancel, Hub, HubError, HubOptions, Pick, Progress, Source, Token};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum concurrent downloads.
const PULLS_MAX: usize = 2;

/// The folder, and the hub that fills it.
#[derive(Debug)]
pub(crate) struct Pulls {
    hub: Hub,
    folders: Arc<Folders>,
    places: Arc<Semaphore>,
}

impl Pulls {
    fn open(config: &PullConfig, folder: &Path) -> Result<Self, ModelsError> {
        let problem = |field, error: &dyn std::fmt::Display| ModelsError::new(field, error.to_string());
        fs::create_dir_all(folder)
            .map_err(|error| problem("pull.folder", &format!("{}: {error}", folder.display())))?;
        let folders = Folders::new(&[folder.to_owned()]).map_err(|error| problem("pull.folder", &error))?;
        let token = config.token_file.as_deref().map(Token::read).transpose();
        let options = HubOptions::new(folder)
            .endpoint(&config.endpoint)
            .token(token.map_err(|error| problem("pull.token_file", &error))?)
            .allow_http(config.allow_http)
            .file_bytes_max(config.file_bytes_max)
            .reserve_bytes(config.reserve_bytes);
        let hub = Hub::new(options).map_err(|error| problem("pull", &error))?;
        Ok(Self { hub, folders: Arc::new(folders), places: Arc::new(Semaphore::new(PULLS_MAX)) })
    }

    /// Takes a download slot; `None` while all are taken.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Folder of the files.
    pub(super) fn folders(&self) -> Arc<Folders> {
        self.folders.clone()
    }
}

/// Returns the model name of a source: `hf.co/OWNER/REPO/QUANT`, since model names cannot contain a colon.
pub(crate) fn name_of(source: &Source) -> Option<String> {
    let text = source.to_string();
    let name = format!("hf.co/{}", text.strip_prefix("hf:")?.replace(':', "/"));
    name::check(&name).is_ok().then_some(name)
}

impl Models {
    /// Adds the models in the folder of `config`, and lets administrators fetch further ones. Without a
    /// folder nothing changes.
    ///
    /// # Errors
    ///
    /// The folder or the token is unusable.
    pub fn with_pulls(mut self, config: &PullConfig) -> Result<Self, ModelsError> {
        if let Some(folder) = &config.folder {
            self.pulls = Some(Arc::new(Pulls::open(config, folder)?));
            self.add_pulled();
        }
        Ok(self)
    }

    /// The folder of fetched models.
    pub(crate) fn pulls(&self) -> Option<&Arc<Pulls>> {
        self.pulls.as_ref()
    }

    /// Fetches a model and adds it. Returns its name.
    pub(crate) fn pull(
        &self,
        pulls: &Pulls,
        source: &Source,
        cancel: &Cancel,
        progress: &mut (dyn FnMut(&Progress<'_>) + Send),
    ) -> Result<(), HubError> {
        pulls.hub.pull(source, cancel, progress)?;
        self.add_pulled();
        Ok(())
    }

    /// Returns the source with the quantization of the only fetched model of a repository, if it names none.
    pub(crate) fn pulled_source(&self, pulls: &Pulls, source: Source) -> Source {
        let Source::Hub { repo, pick: Pick::Usual } = &source else { return source };
        let sources = pulls.hub.models().into_iter().filter_map(|model| model.source.parse::<Source>().ok());
        let of_repo = |other: &Source| matches!(other, Source::Hub { repo: other, .. } if other == repo);
        let mut found: Vec<_> = sources.filter(of_repo).collect();
        if found.len() == 1 { found.remove(0) } else { source }
    }

    /// Deletes the files of a model.
    pub(crate) fn delete_pulled(&self, pulls: &Pulls, source: &Source) -> Result<(), HubError> {
        pulls.hub.remove(source).map(drop)
    }

    /// Adds new models of the folder.
    fn add_pulled(&self) {
        let Some(pulls) = &self.pulls else { return };
        for model in pulls.hub.models() {
            let Some(name) = model.source.parse().ok().and_then(|source| name_of(&source)) else { continue };
            let Some(path) = model.files.first() else { continue };
            if self.registry().status(&name).is_err() {
                self.add_file(&name, path, pulls.folders());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names_without_colons() {
        let of = |text: &str| name_of(&text.parse().unwrap());
        assert_eq!(of("hf.co/o/r:Q4_K_M").as_deref(), Some("hf.co/o/r/Q4_K_M"));
        assert_eq!(of("hf:o/r/a/b.gguf").as_deref(), Some("hf.co/o/r/a/b.gguf"));
        assert_eq!(of("hf:o/r/a b.gguf"), None);
        assert_eq!(of("https://a.org/b.gguf"), None);
    }
}
