//! Model sources: repositories of the hub, addresses, paths.

use crate::error::HubError;
use crate::name;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Prefixes of repositories, including Ollama's.
const HUB_PREFIXES: [&str; 5] =
    ["hf:", "hf.co/", "huggingface.co/", "https://hf.co/", "https://huggingface.co/"];

/// A repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repo {
    owner: String,
    name: String,
}

impl Repo {
    /// Creates a repository from owner and name.
    ///
    /// # Errors
    ///
    /// The names have characters that the hub does not allow.
    pub fn new(owner: &str, name: &str) -> Result<Self, HubError> {
        let source =
            |problem| HubError::Source { text: name::printable(&format!("{owner}/{name}")), problem };
        name::check_repo_part(owner).map_err(source)?;
        name::check_repo_part(name).map_err(source)?;
        Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
    }

    /// Returns the user or organization.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Returns the name below the owner.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Selection among the models of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pick {
    /// The default quantization: the first of `Q4_K_M`, `Q4_0`, `Q8_0` and others that the repository has.
    Usual,
    /// The model with this quantization in its name.
    Quant(String),
    /// The file with this path in the repository; for a split model any of its parts.
    File(String),
}

/// Source of a model.
///
/// ```
/// use exsa_hub::{Pick, Source};
///
/// let source: Source = "hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0".parse()?;
/// assert!(matches!(&source, Source::Hub { pick: Pick::Quant(quant), .. } if quant == "Q8_0"));
/// assert!(matches!("model.gguf".parse()?, Source::Path(_)));
/// assert_eq!(source.to_string(), "hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0");
/// # Ok::<(), exsa_hub::HubError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// `hf:OWNER/REPO`, `hf:OWNER/REPO:QUANT` or `hf:OWNER/REPO/FILE`.
    Hub {
        /// The repository.
        repo: Repo,
        /// Which of its models.
        pick: Pick,
    },
    /// An address, `https://…` or `http://…`, optionally followed by `#sha256=` and the digest of the file.
    Url {
        /// The address without fragment.
        url: String,
        /// Expected digest in hexadecimal digits.
        sha256: Option<String>,
    },
    /// A local file.
    Path(PathBuf),
}

impl Source {
    /// Returns whether a text names a source that must be downloaded.
    #[must_use]
    pub fn is_remote(text: &str) -> bool {
        text.contains("://") || HUB_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
    }

    /// Parses a hub source from the text after the prefix.
    fn hub(text: &str, rest: &str) -> Result<Self, HubError> {
        let refused = |problem: String| HubError::Source { text: name::printable(text), problem };
        // Addresses of file pages on the site.
        let rest = rest.replacen("/blob/main/", "/", 1).replacen("/resolve/main/", "/", 1);
        let mut parts = rest.splitn(3, '/');
        let (owner, repo) = match (parts.next(), parts.next()) {
            (Some(owner), Some(repo)) => (owner, repo),
            _ => return Err(refused("a repository has an owner and a name".into())),
        };
        let file = parts.next().filter(|file| !file.is_empty());
        let (repo, quant) = match repo.split_once(':') {
            Some((repo, quant)) => (repo, Some(quant)),
            None => (repo, None),
        };
        let pick = match (quant, file) {
            (None, None) => Pick::Usual,
            (Some(""), None) => return Err(refused("behind ':' a quantization is expected".into())),
            // Ollama's default tag.
            (Some("latest"), None) => Pick::Usual,
            (Some(quant), None) => {
                if quant.len() > 64
                    || !quant.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
                {
                    return Err(refused("a quantization has letters, digits, '_' and '-'".into()));
                }
                Pick::Quant(quant.to_owned())
            }
            (None, Some(file)) => {
                name::check_path(file).map_err(refused)?;
                Pick::File(file.to_owned())
            }
            (Some(_), Some(_)) => return Err(refused("a quantization and a file exclude each other".into())),
        };
        let repo = Repo::new(owner, repo).map_err(|error| match error {
            HubError::Source { problem, .. } => refused(problem),
            other => other,
        })?;
        Ok(Self::Hub { repo, pick })
    }

    fn url(text: &str) -> Result<Self, HubError> {
        let refused =
            |problem: &str| HubError::Source { text: name::printable(text), problem: problem.into() };
        if !text.starts_with("https://") && !text.starts_with("http://") {
            return Err(refused("only https and http addresses can be fetched"));
        }
        let (url, fragment) = text.split_once('#').map_or((text, None), |(url, rest)| (url, Some(rest)));
        let sha256 = match fragment {
            None => None,
            Some(fragment) => {
                let digits = fragment.strip_prefix("sha256=").filter(|digits| name::is_hex(digits, 64));
                let digits =
                    digits.ok_or_else(|| refused("behind '#' only sha256= and 64 hexadecimal digits"))?;
                Some(digits.to_ascii_lowercase())
            }
        };
        let uri: ureq::http::Uri = url.parse().map_err(|_| refused("it is no address"))?;
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => {
                Err(refused("an address with a user or password ends up in logs"))
            }
            Some(authority) if !authority.host().is_empty() => Ok(Self::Url { url: url.to_owned(), sha256 }),
            _ => Err(refused("it has no host")),
        }
    }
}

impl FromStr for Source {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        if let Some(rest) = HUB_PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            return Self::hub(text, rest);
        }
        if text.contains("://") {
            return Self::url(text);
        }
        if text.is_empty() || text.contains('\0') {
            return Err(HubError::Source {
                text: name::printable(text),
                problem: "it is empty or has a NUL".into(),
            });
        }
        Ok(Self::Path(text.into()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo, pick: Pick::Usual } => write!(f, "hf:{repo}"),
            Self::Hub { repo, pick: Pick::Quant(quant) } => write!(f, "hf:{repo}:{quant}"),
            Self::Hub { repo, pick: Pick::File(file) } => write!(f, "hf:{repo}/{file}"),
            Self::Url { url, sha256: None } => f.write_str(url),
            Self::Url { url, sha256: Some(digest) } => write!(f, "{url}#sha256={digest}"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_by_their_texts() {
        for (text, shown) in [
            ("hf:o/r", "hf:o/r"),
            ("hf:o/r:Q4_K_M", "hf:o/r:Q4_K_M"),
            ("hf:o/r/a/b.gguf", "hf:o/r/a/b.gguf"),
            ("hf.co/o/r:latest", "hf:o/r"),
            ("huggingface.co/o/r:UD-Q4_K_XL", "hf:o/r:UD-Q4_K_XL"),
            ("https://huggingface.co/o/r", "hf:o/r"),
            ("https://huggingface.co/o/r/resolve/main/x.gguf", "hf:o/r/x.gguf"),
            ("https://huggingface.co/o/r/blob/main/x.gguf", "hf:o/r/x.gguf"),
            ("https://example.org/a.gguf?x=1", "https://example.org/a.gguf?x=1"),
            ("http://[::1]:80/a.gguf", "http://[::1]:80/a.gguf"),
            ("a/b.gguf", "a/b.gguf"),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.to_string(), shown);
            assert_eq!(shown.parse::<Source>().unwrap(), source);
        }
        let digest = "A".repeat(64);
        let source: Source = format!("https://e.org/a#sha256={digest}").parse().unwrap();
        assert!(matches!(source, Source::Url { sha256: Some(found), .. } if found == "a".repeat(64)));
    }

    #[test]
    fn bad_sources_are_refused_in_words() {
        for text in [
            "",
            "hf:",
            "hf:o",
            "hf:o/",
            "hf:/r",
            "hf:o/r:",
            "hf:o/r:a b",
            "hf:../r",
            "hf:o/..",
            "hf:o/r/../../x",
            "hf:o/r//x",
            "hf:o/r/..",
            "hf:o/r:Q4/x",
            "hf:o/r:../x",
            "ftp://a/b",
            "https://",
            "https:///x",
            "https://u:p@h/x",
            "file:///etc/passwd",
            "https://h/x#sha256=12",
            "https://h/x#y",
            "https://h h/x",
            "a\0b",
        ] {
            let error = text.parse::<Source>().unwrap_err();
            assert!(matches!(error, HubError::Source { .. }), "{text:?}: {error}");
        }
    }
}
