//! The services over one host.

use crate::control::Control;
use crate::health::Health;
use crate::host::Host;
use crate::inference::Inference;
use crate::options::GrpcOptions;
use crate::proto::control_server::ControlServer;
use crate::proto::inference_server::InferenceServer;
use crate::running::Running;
use std::fmt;
use std::sync::Arc;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

/// State shared by the services.
pub(crate) struct Shared<H> {
    pub(crate) host: H,
    pub(crate) options: GrpcOptions,
    pub(crate) running: Arc<Running>,
}

/// The services over a [`Host`], such as the `Arc` of a generator.
pub struct Services<H>(Arc<Shared<H>>);

impl<H: Host> Services<H> {
    /// Creates the services for `host`.
    pub fn new(host: H, options: GrpcOptions) -> Self {
        Self(Arc::new(Shared { host, options, running: Arc::default() }))
    }

    /// The service `vllm.Inference`.
    pub fn inference(&self) -> InferenceServer<Inference<H>> {
        let max = self.0.options.message_bytes_max;
        InferenceServer::new(Inference::new(self.0.clone()))
            .max_decoding_message_size(max)
            .max_encoding_message_size(usize::MAX)
    }

    /// The service `vllm.Control`.
    pub fn control(&self) -> ControlServer<Control<H>> {
        let max = self.0.options.message_bytes_max;
        ControlServer::new(Control::new(self.0.clone())).max_decoding_message_size(max)
    }

    /// The standard health service.
    pub fn health(&self) -> HealthServer<Health<H>> {
        HealthServer::new(Health::new(self.0.clone()))
    }

    /// Returns the routes of all services.
    pub fn routes(&self) -> Routes {
        Routes::new(self.inference()).add_service(self.control()).add_service(self.health())
    }
}

impl<H> Clone for Services<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H> fmt::Debug for Services<H> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { options, running, .. } = &*self.0;
        out.debug_struct("Services")
            .field("options", options)
            .field("running", running)
            .finish_non_exhaustive()
    }
}
