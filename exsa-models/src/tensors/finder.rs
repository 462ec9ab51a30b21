//! Tensors of a file by name and shape, and which of them were found.

use super::{ExpertProjection, Matrix, Norm, Projection, Vector};
use crate::architecture::NormKind;
use exsa_core::error::LoadError;
use exsa_core::gguf::{Gguf, TensorInfo};
use std::collections::BTreeSet;

/// Finds tensors, and remembers those that were found.
pub(crate) struct Finder<'g> {
    gguf: &'g Gguf,
    found: BTreeSet<&'g str>,
}

impl<'g> Finder<'g> {
    /// Of the tensors of `gguf`.
    pub fn new(gguf: &'g Gguf) -> Self {
        Self { gguf, found: BTreeSet::new() }
    }

    /// Whether the file has tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// Rows of the matrix `name`.
    pub fn rows(&self, name: &str) -> Result<usize, LoadError> {
        let tensor = self.find(name)?;
        match tensor.shape[..] {
            [_, rows] if rows > 0 => usize::try_from(rows).map_err(|_| wrong_shape(tensor, "a matrix")),
            _ => Err(wrong_shape(tensor, "a matrix")),
        }
    }

    /// The matrix `name` of `rows` rows and `columns` columns.
    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix<'g>, LoadError> {
        let tensor = self.of_shape(name, &[columns as u64, rows as u64])?;
        Ok(Matrix { tensor, rows, columns })
    }

    /// The projection of `columns` to `rows` values of each of `experts` experts by `{name}.weight`,
    /// `[columns, rows, experts]` in the file, and, where the file has one, `{name}.bias`.
    pub fn expert_projection(
        &mut self,
        name: &str,
        (experts, rows, columns): (usize, usize, usize),
    ) -> Result<ExpertProjection<'g>, LoadError> {
        let bias = format!("{name}.bias");
        let bias = if self.has(&bias) { Some(self.matrix(&bias, experts, rows)?) } else { None };
        let shape = [columns as u64, rows as u64, experts as u64];
        let tensor = self.of_shape(&format!("{name}.weight"), &shape)?;
        Ok(ExpertProjection { tensor, experts, rows, columns, bias })
    }

    /// Leaves out the tensors whose names begin with `prefix`.
    pub fn leave_out(&mut self, prefix: &str) {
        let names = self.gguf.tensors().iter().map(|tensor| tensor.name.as_str());
        self.found.extend(names.filter(|name| name.starts_with(prefix)));
    }

    /// The vector `name` of `len` values.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vector<'g>, LoadError> {
        let tensor = self.of_shape(name, &[len as u64])?;
        Ok(Vector { tensor, len })
    }

    /// The vector `name` where the file has one.
    pub fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Vector<'g>>, LoadError> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// The projection of `columns` to `rows` values by `{name}.weight` and, where the file has one,
    /// `{name}.bias`.
    pub fn projection(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Projection<'g>, LoadError> {
        let bias = self.optional_vector(&format!("{name}.bias"), rows)?;
        Ok(Projection { weight: self.matrix(&format!("{name}.weight"), rows, columns)?, bias })
    }

    /// The weight of the RMSNorm `name` of `len` values.
    pub fn rms_norm(&mut self, name: &str, len: usize) -> Result<Vector<'g>, LoadError> {
        self.vector(&format!("{name}.weight"), len)
    }

    /// The norm `name` of `len` values.
    pub fn norm(&mut self, kind: NormKind, name: &str, len: usize) -> Result<Norm<'g>, LoadError> {
        match kind {
            NormKind::Rms => self.rms_norm(name, len).map(Norm::Rms),
            NormKind::Layer { bias } => {
                let weight = self.vector(&format!("{name}.weight"), len)?;
                let bias = if bias { Some(self.vector(&format!("{name}.bias"), len)?) } else { None };
                Ok(Norm::Layer { weight, bias })
            }
        }
    }

    /// Refuses a file with tensors that nobody looked for: the model computes with something that is not
    /// known here.
    pub fn finish(self) -> Result<(), LoadError> {
        let left = self.gguf.tensors().iter().find(|tensor| !self.found.contains(tensor.name.as_str()));
        match left {
            Some(tensor) => {
                let is_scale = [".scale", ".input_scale"].iter().any(|end| tensor.name.ends_with(end));
                let problem = if is_scale {
                    "scales beside the weights, as files in NVFP4 have them, are not supported; files without are"
                } else {
                    "the architecture knows no such tensor"
                };
                Err(LoadError::Tensor { name: tensor.name.clone(), problem: problem.to_owned() })
            }
            None => Ok(()),
        }
    }

    fn find(&self, name: &str) -> Result<&'g TensorInfo, LoadError> {
        self.gguf
            .tensor(name)
            .ok_or_else(|| LoadError::Tensor { name: name.to_owned(), problem: "missing".to_owned() })
    }

    fn of_shape(&mut self, name: &str, shape: &[u64]) -> Result<&'g TensorInfo, LoadError> {
        let tensor = self.find(name)?;
        if tensor.shape != shape {
            return Err(wrong_shape(tensor, &format!("{shape:?}")));
        }
        self.found.insert(&tensor.name);
        Ok(tensor)
    }
}

fn wrong_shape(tensor: &TensorInfo, expected: &str) -> LoadError {
    LoadError::Tensor {
        name: tensor.name.clone(),
        problem: format!("its shape is {:?}, but {expected} is expected", tensor.shape),
    }
}
