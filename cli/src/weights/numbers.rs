//! The numbers of tensors, piece by piece: widened to F32, hashed, written.
//!
//! It knows no names.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::files::{StoredTensor, TensorFiles};
use super::{TensorCopy, WeightsError};

/// How much of a tensor is in memory at a time; a multiple of every element's size.
const PIECE_BYTES: u64 = 1 << 20;

/// The header is padded to a multiple of this, so that the numbers are aligned.
const HEADER_ALIGNMENT: usize = 8;

/// A type of numbers, each of which F32 holds exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    /// The type of a tensor, if it can be read without loss.
    pub(super) fn of(name: &str, dtype: Dtype) -> Result<Self, WeightsError> {
        match dtype {
            Dtype::F32 => Ok(Self::F32),
            Dtype::F16 => Ok(Self::F16),
            Dtype::BF16 => Ok(Self::Bf16),
            _ => Err(WeightsError::ElementType { name: name.to_owned(), dtype }),
        }
    }

    /// The name in the header of a safetensors file.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The same numbers as F32.
    fn widen(self, piece: &[u8]) -> Vec<u8> {
        let pairs = || piece.as_chunks::<2>().0.iter();
        match self {
            Self::F32 => piece.to_vec(),
            Self::F16 => {
                pairs().flat_map(|two| f16::from_le_bytes(*two).to_f32().to_le_bytes()).collect()
            }
            Self::Bf16 => {
                pairs().flat_map(|two| bf16::from_le_bytes(*two).to_f32().to_le_bytes()).collect()
            }
        }
    }
}

/// How many bytes a tensor takes as F32.
pub(super) fn n_written_bytes(stored: &StoredTensor) -> u64 {
    stored.n_bytes / (stored.dtype.bitsize() as u64 / 8) * 4
}

/// The hash of a tensor's numbers; equal numbers of whatever type have equal hashes.
pub(super) fn hash(
    source: &TensorFiles,
    name: &str,
    stored: &StoredTensor,
) -> Result<blake3::Hash, WeightsError> {
    let mut hasher = blake3::Hasher::new();
    let element = Element::of(name, stored.dtype)?;
    pieces(source, stored, element, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finalize())
}

/// Writes a safetensors file of F32 tensors in the order given, and makes it durable.
pub(super) fn write(
    path: &Path,
    source: &TensorFiles,
    copies: &[TensorCopy],
    format: Option<&str>,
) -> Result<(), WeightsError> {
    let failed = |source| WeightsError::Write { path: path.to_owned(), source };
    let mut file = File::create_new(path).map_err(failed)?;
    let header = header(copies, format)
        .map_err(|problem| WeightsError::Format { path: path.to_owned(), problem })?;
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&header).map_err(failed)?;
    for copy in copies {
        pieces(source, &copy.stored, copy.element, |piece| file.write_all(piece).map_err(failed))?;
    }
    file.sync_all().map_err(failed)
}

fn header(copies: &[TensorCopy], format: Option<&str>) -> Result<Vec<u8>, String> {
    let mut tensors = Vec::with_capacity(copies.len());
    let mut end = 0;
    for TensorCopy { stored, name, .. } in copies {
        let size = |n: u64| usize::try_from(n).map_err(|_| format!("`{name}` is too large"));
        let start = end;
        end += size(n_written_bytes(stored))?;
        let shape = stored.shape.iter().map(|n| size(*n)).collect::<Result<_, _>>()?;
        let info = TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) };
        tensors.push((name.clone(), info));
    }
    let extra = format.map(|format| HashMap::from([("format".to_owned(), format.to_owned())]));
    let metadata = Metadata::new(extra, tensors).map_err(|error| error.to_string())?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?;
    header.resize(header.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    Ok(header)
}

/// Hands a tensor's numbers on as F32, a piece at a time.
fn pieces(
    source: &TensorFiles,
    stored: &StoredTensor,
    element: Element,
    mut take: impl FnMut(&[u8]) -> Result<(), WeightsError>,
) -> Result<(), WeightsError> {
    let mut buffer = Vec::new();
    let mut offset = 0;
    while offset < stored.n_bytes {
        let n_bytes = PIECE_BYTES.min(stored.n_bytes - offset);
        // At most `PIECE_BYTES`, which fits.
        buffer.resize(usize::try_from(n_bytes).unwrap_or(0), 0);
        source.read(stored, offset, &mut buffer)?;
        take(&element.widen(&buffer))?;
        offset += n_bytes;
    }
    Ok(())
}
