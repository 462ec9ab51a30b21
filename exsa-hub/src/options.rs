//! [`HubOptions`], with the environment variables of `huggingface_hub`.

use crate::error::HubError;
use crate::token::Token;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Address of Hugging Face's hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Proxy for all requests.
#[derive(Clone)]
pub(crate) enum Proxy {
    None,
    /// From the environment variables.
    Environment,
    Url(String),
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An address may contain a password.
        f.write_str(match self {
            Self::None => "None",
            Self::Environment => "Environment",
            Self::Url(_) => "Url(…)",
        })
    }
}

/// Locations and limits of downloads.
///
/// ```
/// use exsa_hub::HubOptions;
///
/// let options = HubOptions::new("cache").parallel(8).offline(true);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HubOptions {
    pub(crate) cache: PathBuf,
    pub(crate) downloads: PathBuf,
    pub(crate) endpoint: String,
    pub(crate) revision: String,
    pub(crate) token: Option<Token>,
    pub(crate) token_advice: Option<String>,
    pub(crate) offline: bool,
    pub(crate) allow_http: bool,
    pub(crate) projector: bool,
    pub(crate) proxy: Proxy,
    pub(crate) parallel: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) file_bytes_max: u64,
    pub(crate) listing_bytes_max: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) retries_max: u32,
    pub(crate) backoff: Duration,
    pub(crate) retry_wait_max: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
}

impl HubOptions {
    /// Creates options with a cache folder in Hugging Face's layout, without environment variables.
    #[must_use]
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        let cache = cache.into();
        Self {
            downloads: cache.join("exsa-downloads"),
            cache,
            endpoint: ENDPOINT.to_owned(),
            revision: "main".to_owned(),
            token: None,
            token_advice: None,
            offline: false,
            allow_http: false,
            projector: true,
            proxy: Proxy::None,
            parallel: 4,
            segment_bytes: 32 << 20,
            file_bytes_max: 4 << 40,
            listing_bytes_max: 32 << 20,
            reserve_bytes: 64 << 20,
            retries_max: 5,
            backoff: Duration::from_millis(500),
            retry_wait_max: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(60),
        }
    }

    /// Creates options from the environment: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` (cache),
    /// `HF_ENDPOINT` (mirror), `HF_TOKEN`, `HF_TOKEN_PATH` (token), `HF_HUB_OFFLINE`, and for proxies
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`. Without `HF_TOKEN_PATH` the file `token` in
    /// `HF_HOME` is used, and ignored if others can read it.
    ///
    /// # Errors
    ///
    /// There is no home folder, or the token is invalid or in a file that others can read.
    pub fn from_env() -> Result<Self, HubError> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        Self::from_variables(&set)
    }

    fn from_variables(set: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let home = || set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
        let caches = set("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = caches.or_else(|| home().map(|home| home.join(".cache")));
        let own = set("HF_HOME").map(PathBuf::from);
        let hf_home = own.or_else(|| caches.as_ref().map(|folder| folder.join("huggingface")));
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let cache = cache.or_else(|| hf_home.as_ref().map(|folder| folder.join("hub")));
        let cache = cache.ok_or_else(|| HubError::Option {
            option: "cache",
            problem: "there is no home folder; set HF_HOME".to_owned(),
        })?;
        let mut options = Self::new(cache);
        options.proxy = Proxy::Environment;
        if let Some(caches) = &caches {
            options.downloads = caches.join("exsa").join("downloads");
        }
        if let Some(endpoint) = set("HF_ENDPOINT") {
            let endpoint = endpoint.into_string().map_err(|_| HubError::Option {
                option: "endpoint",
                problem: "HF_ENDPOINT is no text".into(),
            })?;
            options = options.endpoint(endpoint);
        }
        let truth =
            |value: OsString| ["1", "on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word));
        options.offline = set("HF_HUB_OFFLINE").is_some_and(truth);
        if let Some(token) = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN")) {
            options.token = Some(Token::new(&token.to_string_lossy())?);
        } else if let Some(path) = set("HF_TOKEN_PATH") {
            options.token = Some(Token::read(&PathBuf::from(path))?);
        } else if let Some(path) = hf_home.map(|folder| folder.join("token")).filter(|path| path.is_file()) {
            // Public models need no token: an unusable file only matters once the hub asks for one.
            match Token::read(&path) {
                Ok(token) => options.token = Some(token),
                Err(error) => options.token_advice = Some(error.to_string()),
            }
        }
        Ok(options)
    }

    /// Sets the folder for files from other addresses.
    #[must_use]
    pub fn downloads(mut self, folder: impl Into<PathBuf>) -> Self {
        self.downloads = folder.into();
        self
    }

    /// Sets the address of the hub or of a mirror.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = url.into().trim_end_matches('/').to_owned();
        self
    }

    /// Sets branch, tag or commit; `main` by default.
    #[must_use]
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// Sets the token, which is only sent to the endpoint.
    #[must_use]
    pub fn token(mut self, token: Option<Token>) -> Self {
        self.token = token;
        self
    }

    /// Uses only the cache.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Allows plain `http` for sources, the endpoint and redirects.
    #[must_use]
    pub fn allow_http(mut self, allow: bool) -> Self {
        self.allow_http = allow;
        self
    }

    /// Also downloads the projector of a vision model, if its repository has one; on by default.
    #[must_use]
    pub fn projector(mut self, projector: bool) -> Self {
        self.projector = projector;
        self
    }

    /// Sets a proxy; [`from_env`](Self::from_env) uses the environment's.
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Proxy::Url(url.into());
        self
    }

    /// Sets the concurrent parts of a file, 1 to 16.
    #[must_use]
    pub fn parallel(mut self, parts: usize) -> Self {
        self.parallel = parts;
        self
    }

    /// Sets the bytes of a part; 32 MiB by default.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets the maximum file size in bytes; 4 TiB by default.
    #[must_use]
    pub fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = bytes;
        self
    }

    /// Sets the maximum bytes of a repository's listing; 32 MiB by default.
    #[must_use]
    pub fn listing_bytes_max(mut self, bytes: u64) -> Self {
        self.listing_bytes_max = bytes;
        self
    }

    /// Sets the bytes of the disk to keep free; 64 MiB by default.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Sets the maximum consecutive retries without progress; 5 by default.
    #[must_use]
    pub fn retries_max(mut self, retries: u32) -> Self {
        self.retries_max = retries;
        self
    }

    /// Sets the delay before the first retry, doubled for each further one; half a second by default.
    #[must_use]
    pub fn backoff(mut self, time: Duration) -> Self {
        self.backoff = time;
        self
    }

    /// Sets the maximum delay that a server may ask for; 2 minutes by default.
    #[must_use]
    pub fn retry_wait_max(mut self, time: Duration) -> Self {
        self.retry_wait_max = time;
        self
    }

    /// Sets the connect timeout; 20 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// Sets the timeout without a byte from the server; 60 s by default.
    #[must_use]
    pub fn read_timeout(mut self, time: Duration) -> Self {
        self.read_timeout = time;
        self
    }

    /// # Errors
    ///
    /// The first invalid option.
    pub(crate) fn validate(&self) -> Result<(), HubError> {
        let refused = |option, problem: &str| Err(HubError::Option { option, problem: problem.to_owned() });
        if !(1..=16).contains(&self.parallel) {
            return refused("parallel", "allowed are 1 to 16 parts");
        }
        if self.segment_bytes == 0 {
            return refused("segment_bytes", "0 is too little");
        }
        if crate::name::check_path(&self.revision).is_err() {
            return refused("revision", "it is no name of a branch, tag or commit");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::path::Path;

    fn options(variables: &[(&str, &str)]) -> Result<HubOptions, HubError> {
        let map: HashMap<_, _> = variables.iter().copied().collect();
        HubOptions::from_variables(&|name| map.get(name).map(OsString::from))
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        for (variables, cache) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "/f")], "/f/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/c"),
        ] {
            assert_eq!(options(variables).unwrap().cache, Path::new(cache), "{variables:?}");
        }
        assert!(options(&[]).unwrap_err().to_string().contains("HF_HOME"));
    }

    #[test]
    fn variables_set_mirror_token_and_offline_mode() {
        let all = [
            ("HOME", "/h"),
            ("HF_ENDPOINT", "https://m.org/"),
            ("HF_TOKEN", "t"),
            ("HF_HUB_OFFLINE", "True"),
        ];
        let options = options(&all).unwrap();
        assert_eq!(options.endpoint, "https://m.org");
        assert_eq!(options.token, Some(Token::new("t").unwrap()));
        assert!(options.offline);
    }

    #[cfg(unix)]
    #[test]
    fn an_open_default_token_is_left_out_and_a_named_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "t").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let (home, path) = (folder.path().to_str().unwrap(), path.to_str().unwrap());
        let found = options(&[("HF_HOME", home)]).unwrap();
        assert_eq!(found.token, None);
        assert!(found.token_advice.unwrap().contains("chmod"));
        assert!(options(&[("HF_HOME", home), ("HF_TOKEN_PATH", path)]).is_err());
    }
}
