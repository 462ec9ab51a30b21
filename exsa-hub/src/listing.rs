//! Repository listings of the hub's API.

use crate::error::HubError;
use crate::name;
use crate::options::HubOptions;
use crate::source::Repo;
use crate::transport::{Transport, shown};
use serde::Deserialize;

/// Maximum files of a listing.
const FILES_MAX: usize = 100_000;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Path within the repository.
    pub path: String,
    /// Length in bytes.
    pub size: Option<u64>,
    /// SHA-256 of the content, for files in LFS.
    pub sha256: Option<String>,
    /// Id of the content in Git, for files that are not in LFS.
    pub blob: Option<String>,
}

/// The files of a repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// The files.
    pub files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: Option<String>,
    size: Option<u64>,
}

impl Listing {
    /// Requests a listing from the hub.
    ///
    /// # Errors
    ///
    /// The hub has no such repository, cannot be reached, or returns invalid data.
    pub(crate) fn fetch(transport: &Transport, options: &HubOptions, repo: &Repo) -> Result<Self, HubError> {
        let revision = name::percent_encoded(&options.revision).replace('/', "%2F");
        let url = format!("{}/api/models/{repo}/revision/{revision}?blobs=true", options.endpoint);
        let bytes = transport.get_bytes(&url, options.listing_bytes_max)?;
        Self::parse(&bytes).map_err(|problem| HubError::Protocol { url: shown(&url), problem })
    }

    /// Parses a listing. Files whose names could lead out of the cache are left out, so they cannot be
    /// downloaded.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(bytes).map_err(|error| format!("no listing: {error}"))?;
        if !name::is_hex(&answer.sha, 40) {
            return Err(format!("'{}' is no commit", name::printable(&answer.sha)));
        }
        if answer.siblings.len() > FILES_MAX {
            return Err(format!("{} files are listed, more than {FILES_MAX}", answer.siblings.len()));
        }
        let files = answer.siblings.into_iter().filter(|file| name::check_path(&file.rfilename).is_ok());
        let files = files.map(|file| {
            let (digest, size) = file.lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
            let sha256 =
                digest.filter(|digest| name::is_hex(digest, 64)).map(|digest| digest.to_ascii_lowercase());
            // The id of a file in LFS is that of its pointer.
            let blob = file.blob_id.filter(|id| sha256.is_none() && name::is_hex(id, 40));
            Listed { path: file.rfilename, size: size.or(file.size), sha256, blob }
        });
        Ok(Self { commit: answer.sha.to_ascii_lowercase(), files: files.collect() })
    }

    /// Returns a file by its path.
    pub(crate) fn file(&self, path: &str) -> Option<&Listed> {
        self.files.iter().find(|file| file.path == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_answer_is_read() {
        let (sha, digest, id) = ("a".repeat(40), "B".repeat(64), "c".repeat(40));
        let text = format!(
            r#"{{"id": "o/r", "sha": "{sha}", "siblings": [
                {{"rfilename": "README.md", "size": 12, "blobId": "{id}"}},
                {{"rfilename": "m.gguf", "size": 99, "blobId": "{id}", "lfs": {{"sha256": "{digest}", "size": 99, "pointerSize": 134}}}},
                {{"rfilename": "x.gguf"}},
                {{"rfilename": "../../evil.gguf", "size": 1}}]}}"#
        );
        let listing = Listing::parse(text.as_bytes()).unwrap();
        assert_eq!(listing.commit, sha);
        let file = |path: &str| listing.file(path).unwrap().clone();
        assert_eq!(file("README.md").blob, Some(id));
        let model = file("m.gguf");
        assert_eq!((model.size, model.sha256, model.blob), (Some(99), Some("b".repeat(64)), None));
        assert_eq!(file("x.gguf").size, None);
        assert_eq!(listing.files.len(), 3, "names that leave the cache are left out");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "[]", "{}", r#"{"sha": "../.."}"#, r#"{"sha": 1}"#, "<html>"] {
            assert!(Listing::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
