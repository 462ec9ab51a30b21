//! Section `[grpc]`: the gRPC services.

use super::Problems;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The section `[grpc]`: the services `vllm.Inference` and `vllm.Control`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct GrpcConfig {
    /// Address with port; without it the services are off.
    pub listen: Option<SocketAddr>,
    /// Name of the model that the services report, and that requests without a model name use; the active one
    /// by default.
    pub model: Option<String>,
    /// Model id, which requests may also name; the model's name by default.
    pub model_id: Option<String>,
}

impl GrpcConfig {
    /// Creates a configuration with services at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { listen: Some(address), ..Self::default() }
    }

    /// Sets the model that the services report.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Sets the id of the model.
    #[must_use]
    pub fn model_id(mut self, id: impl Into<String>) -> Self {
        self.model_id = Some(id.into());
        self
    }

    /// Reports invalid values; `guarded` says whether addresses beyond loopback are allowed.
    pub(super) fn validate(&self, guarded: bool, problems: &mut Problems) {
        let Some(address) = self.listen else { return };
        if cfg!(not(feature = "grpc")) {
            let message = "this exsa-server was built without gRPC; build it with --features grpc";
            problems.add("grpc.listen", message);
        } else if !address.ip().is_loopback() && !guarded {
            let message = format!(
                "{} is reachable from other machines and the server has no authentication; bind to 127.0.0.1, or set \
                 listen.insecure_no_auth if something in front of it authenticates",
                address.ip()
            );
            problems.add("grpc.listen", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &GrpcConfig, guarded: bool) -> Vec<String> {
        let mut problems = Problems::default();
        config.validate(guarded, &mut problems);
        problems.found.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    #[cfg(feature = "grpc")]
    fn addresses_beyond_loopback_need_authentication() {
        let open = GrpcConfig::new("0.0.0.0:50051".parse().unwrap());
        let found = problems(&open, false);
        assert!(found.len() == 1 && found[0].starts_with("0.0.0.0 is reachable"), "{found:?}");
        assert_eq!(problems(&open, true), Vec::<String>::new());
        assert_eq!(problems(&GrpcConfig::new("[::1]:0".parse().unwrap()), false), Vec::<String>::new());
    }

    #[test]
    #[cfg(not(feature = "grpc"))]
    fn a_build_without_grpc_says_so() {
        let config = GrpcConfig::new("127.0.0.1:0".parse().unwrap());
        assert!(problems(&config, true)[0].contains("--features grpc"));
        assert_eq!(problems(&GrpcConfig::default(), false), Vec::<String>::new());
    }
}
