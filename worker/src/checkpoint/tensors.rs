//! Tensors as the bytes of a safetensors file, and back.
//!
//! It opens no files. The same tensors always give the same bytes.

use std::borrow::Cow;
use std::cell::RefCell;

use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::{CheckpointError, NamedTensors};

/// The element types that are stored.
const ELEMENT_TYPES: [(Kind, Dtype); 6] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Half, Dtype::F16),
    (Kind::Int64, Dtype::I64),
    (Kind::Uint8, Dtype::U8),
];

/// The file with these tensors, in the format's own order.
///
/// Beside the file itself, one tensor at a time is held as bytes.
pub fn to_bytes(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, CheckpointError> {
    let failure = RefCell::new(None);
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = dtype_of(name, tensor.kind())?;
        let shape = tensor.size().into_iter().map(|size| usize::try_from(size).unwrap_or(0));
        let view = Stored { name, tensor, dtype, shape: shape.collect(), failure: &failure };
        views.push((name.as_str(), view));
    }
    let bytes = safetensors::serialize(views, None).map_err(CheckpointError::Format)?;
    failure.into_inner().map_or(Ok(bytes), Err)
}

/// A tensor on its way into a file.
struct Stored<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
    /// The first tensor that could not be copied, because [`View::data`] cannot fail.
    failure: &'a RefCell<Option<CheckpointError>>,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let found = content(self.name, self.tensor);
        Cow::Owned(found.unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            vec![]
        }))
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// The tensors of a file, on the CPU, by name.
pub fn from_bytes(bytes: &[u8]) -> Result<NamedTensors, CheckpointError> {
    let file = SafeTensors::deserialize(bytes).map_err(CheckpointError::Format)?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.tensors() {
        let kind = kind_of(&name, view.dtype())?;
        let shape: Vec<i64> =
            view.shape().iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)
            .map_err(|source| CheckpointError::Copy { name: name.clone(), source })?;
        tensors.push((name, tensor));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(tensors)
}

fn content(name: &str, tensor: &Tensor) -> Result<Vec<u8>, CheckpointError> {
    let n_elements = tensor.numel();
    let mut bytes = vec![0; n_elements * tensor.kind().elt_size_in_bytes()];
    tensor
        .f_detach()
        .and_then(|tensor| tensor.f_to_device(Device::Cpu))
        .and_then(|tensor| tensor.f_contiguous())
        .and_then(|tensor| tensor.f_copy_data_u8(&mut bytes, n_elements))
        .map_err(|source| CheckpointError::Copy { name: name.to_owned(), source })?;
    Ok(bytes)
}

fn dtype_of(name: &str, kind: Kind) -> Result<Dtype, CheckpointError> {
    let found = ELEMENT_TYPES.into_iter().find(|(known, _)| *known == kind);
    found.map(|(_, dtype)| dtype).ok_or_else(|| CheckpointError::ElementType {
        name: name.to_owned(),
        dtype: format!("{kind:?}"),
    })
}

fn kind_of(name: &str, dtype: Dtype) -> Result<Kind, CheckpointError> {
    let found = ELEMENT_TYPES.into_iter().find(|(_, known)| *known == dtype);
    found.map(|(kind, _)| kind).ok_or_else(|| CheckpointError::ElementType {
        name: name.to_owned(),
        dtype: format!("{dtype:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_come_back_as_they_went_whatever_their_layout() {
        let matrix = Tensor::from_slice(&[1.0_f32, -0.0, f32::MIN_POSITIVE, 4.0, 5.0, 6.0]);
        let tensors = vec![
            ("b".to_owned(), matrix.view([2, 3]).transpose(0, 1)),
            ("a.step".to_owned(), Tensor::from(7_i64)),
        ];
        let bytes = to_bytes(&tensors).unwrap();
        let read = from_bytes(&bytes).unwrap();
        assert_eq!(read.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a.step", "b"]);
        assert_eq!(i64::try_from(&read[0].1).unwrap(), 7);
        assert_eq!(read[0].1.size(), [0_i64; 0]);
        assert_eq!(read[1].1.size(), [3, 2]);
        assert!(read[1].1.equal(&tensors[0].1));
        assert_eq!(to_bytes(&read).unwrap(), bytes);
    }

    #[test]
    fn a_cut_file_is_refused() {
        let bytes = to_bytes(&[("a".to_owned(), Tensor::from_slice(&[1.0_f32, 2.0]))]).unwrap();
        for n_bytes in [0, 7, 20, bytes.len() - 1] {
            assert!(matches!(from_bytes(&bytes[..n_bytes]), Err(CheckpointError::Format(_))));
        }
    }
}
