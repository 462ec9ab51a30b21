//! The backend over the devices of one kind.

use crate::device::{Device, Devices, HostBytes};
use crate::mapping;
use crate::model::{self, GpuModel, check_matrix, check_vector};
use crate::session::SessionPlan;
use exsa_core::backend::{
    DeviceInfo, InferenceBackend, LoadOptions, LoadProgress, MemoryEstimate, Model, ModelSource,
    SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;
use exsa_core::model_info::{self, ModelInfo};
use exsa_models::{ModelDescription, tensors};
use std::io::Cursor;
use std::sync::Arc;

/// Runs GGUF models on the devices of one kind.
#[derive(Clone, Debug, Default)]
pub struct GpuBackend<P: Devices> {
    devices: P,
}

impl<P: Devices> GpuBackend<P> {
    /// The backend over `devices`.
    #[must_use]
    pub fn new(devices: P) -> Self {
        Self { devices }
    }

    /// The devices that it was made from.
    #[must_use]
    pub fn provider(&self) -> &P {
        &self.devices
    }

    /// The name of the device that `options` ask for, if there is such a device.
    fn find(&self, options: &LoadOptions) -> Result<String, LoadError> {
        let devices = self.devices.list();
        let found = match &options.device {
            Some(name) => devices.iter().find(|device| device.name == *name),
            None => devices.first(),
        };
        found.map(|device| device.name.clone()).ok_or_else(|| {
            let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
            let there = match self.devices.unavailable() {
                Some(reason) => reason,
                None => format!("there are {}", names.join(", ")),
            };
            let problem = match &options.device {
                Some(name) => format!("no device '{name}': {there}"),
                None => there,
            };
            LoadError::Option { option: "device", problem }
        })
    }
}

/// The bytes of a model file and its header.
fn open(source: &ModelSource) -> Result<(HostBytes, Gguf), LoadError> {
    let file = mapping::open(source)?;
    let gguf = Gguf::read(&mut Cursor::new((*file).as_ref()))?;
    model_info::check_type(&gguf)?;
    if let Some(split) = gguf.split()? {
        return Err(LoadError::Unsupported {
            what: format!("part {} of {} of a split model", split.index + 1, split.count),
            supported: "a model in one file; the candle and llama.cpp backends load split models".to_owned(),
        });
    }
    Ok((file, gguf))
}

/// Refuses options that change what a file says.
fn check_options(options: &LoadOptions) -> Result<(), LoadError> {
    let option = if options.quantize.is_some() {
        "quantize"
    } else if !options.metadata_overrides.is_empty() {
        "metadata_override"
    } else {
        return Ok(());
    };
    let problem = "it is not supported on this backend; the candle backend has it".to_owned();
    Err(LoadError::Option { option, problem })
}

/// A file with weights, of types that there are kernels for.
fn open_weights(source: &ModelSource) -> Result<(HostBytes, Gguf), LoadError> {
    let (file, gguf) = open(source)?;
    if gguf.tensors().is_empty() {
        return Err(LoadError::NoWeights);
    }
    for tensor in gguf.tensors() {
        if tensors::is_operand(tensor) { check_matrix(tensor).map(|_| ())? } else { check_vector(tensor)? }
    }
    Ok((file, gguf))
}

impl<P: Devices> InferenceBackend for GpuBackend<P> {
    fn name(&self) -> &str {
        self.devices.name()
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.devices.list()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        let (_, gguf) = open(source)?;
        ModelInfo::from_gguf(&gguf).map_err(Into::into)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        check_options(options)?;
        let name = self.find(options)?;
        let (file, gguf) = open_weights(source)?;
        let device = self.devices.open(Some(&name))?;
        Ok(Arc::new(GpuModel::load(device, self.devices.name(), (&gguf, &file), progress)?))
    }

    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        session: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        check_options(load)?;
        let device = self.devices.open(Some(&self.find(load)?))?;
        let (_, gguf) = open_weights(source)?;
        let description = ModelDescription::read(&gguf, 0)?;
        model::check(&description)?;
        let plan = SessionPlan::new(&description.config, description.n_vocab, device.limits(), session)?;
        let weights = gguf.tensors().iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add);
        Ok(MemoryEstimate::new(weights, plan.kv_bytes(), plan.scratch.bytes()))
    }
}
