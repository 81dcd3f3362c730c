//! The tensors of a folder: where each one's numbers lie, without reading them.
//!
//! It does not know what the tensors mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::{MODEL_FILE, WeightsError};

/// Which file of a sharded model holds which tensor.
const INDEX_FILE: &str = "model.safetensors.index.json";

/// The length of the header stands in the first bytes of a file.
const LENGTH_BYTES: u64 = 8;
/// As the format has it; a longer header is no header.
const LONGEST_HEADER_BYTES: u64 = 100_000_000;

/// One tensor in a file.
#[derive(Debug, Clone)]
pub(super) struct StoredTensor {
    /// The type of its numbers.
    pub(super) dtype: Dtype,
    /// Its sizes.
    pub(super) shape: Vec<u64>,
    /// Which of the files.
    file: usize,
    /// Where in the file the numbers begin.
    start: u64,
    /// How many bytes they are.
    pub(super) n_bytes: u64,
}

/// The tensors of one or several files.
#[derive(Debug)]
pub(super) struct TensorFiles {
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, StoredTensor>,
}

/// What is read of the index.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorFiles {
    /// The tensors of one file.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let mut files = Self { files: Vec::new(), tensors: BTreeMap::new() };
        files.add(path)?;
        Ok(files)
    }

    /// The tensors of a folder in the Hugging Face layout: in one file, or in those of an index.
    pub(super) fn open_sharded(folder: &Path) -> Result<Self, WeightsError> {
        let (model, index) = (folder.join(MODEL_FILE), folder.join(INDEX_FILE));
        let folder = folder.to_owned();
        match (model.is_file(), index.is_file()) {
            (true, false) => Self::open(&model),
            (false, true) => Self::open_index(&index),
            (true, true) => Err(WeightsError::TwoWeights { folder }),
            (false, false) => Err(WeightsError::NoWeights { folder }),
        }
    }

    fn open_index(path: &Path) -> Result<Self, WeightsError> {
        let problem = |problem| WeightsError::Index { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path)
            .map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
        let Index { weight_map } = serde_json::from_str(&text)
            .map_err(|source| WeightsError::Json { path: path.to_owned(), source })?;
        let mut files = Self { files: Vec::new(), tensors: BTreeMap::new() };
        let names: BTreeSet<&String> = weight_map.values().collect();
        for (number, name) in names.into_iter().enumerate() {
            // A name with a folder in it could lead anywhere on this machine.
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(problem(format!("`{name}` is not the name of a file beside it")));
            }
            let found = files.add(&path.with_file_name(name))?;
            if let Some(tensor) = found.iter().find(|tensor| weight_map.get(*tensor) != Some(name))
            {
                return Err(problem(format!("it does not say that `{name}` holds `{tensor}`")));
            }
            let held = |tensor: &String| files.get(tensor).is_some_and(|one| one.file == number);
            let mut promised = weight_map.iter().filter(|(_, file)| *file == name);
            if let Some((tensor, _)) = promised.find(|(tensor, _)| !held(tensor)) {
                return Err(problem(format!("`{name}` does not hold `{tensor}`")));
            }
        }
        Ok(files)
    }

    /// Adds a file; gives the names of its tensors.
    fn add(&mut self, path: &Path) -> Result<Vec<String>, WeightsError> {
        let file = File::open(path)
            .map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
        let (metadata, content_start) = read_header(path, &file)?;
        let names = metadata.offset_keys();
        for name in &names {
            let Some(info) = metadata.info(name) else { continue };
            let (start, end) = info.data_offsets;
            let stored = StoredTensor {
                dtype: info.dtype,
                shape: info.shape.iter().map(|size| *size as u64).collect(),
                file: self.files.len(),
                start: content_start + start as u64,
                n_bytes: (end - start) as u64,
            };
            self.tensors.insert(name.clone(), stored);
        }
        self.files.push((path.to_owned(), file));
        Ok(names)
    }

    /// A tensor by name.
    pub(super) fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// The names of which something holds, in order.
    pub(super) fn names_that(&self, holds: impl Fn(&str) -> bool) -> Vec<String> {
        self.tensors.keys().filter(|name| holds(name)).cloned().collect()
    }

    /// Fills `buffer` with the bytes of a tensor from `offset` on.
    pub(super) fn read(
        &self,
        tensor: &StoredTensor,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), WeightsError> {
        let (path, file) = &self.files[tensor.file];
        file.read_exact_at(buffer, tensor.start + offset)
            .map_err(|source| WeightsError::Read { path: path.clone(), source })
    }
}

/// The header of a file, and where the numbers begin.
fn read_header(path: &Path, file: &File) -> Result<(Metadata, u64), WeightsError> {
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    let problem = |problem: String| WeightsError::Format { path: path.to_owned(), problem };
    let file_bytes = file.metadata().map_err(read)?.len();
    if file_bytes < LENGTH_BYTES {
        return Err(problem(format!("it has {file_bytes} bytes")));
    }
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(read)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER_BYTES.min(file_bytes - LENGTH_BYTES) {
        return Err(problem(format!("its header would have {length} bytes")));
    }
    // At most the constant above, which fits.
    let mut header = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut header, LENGTH_BYTES).map_err(read)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| problem(error.to_string()))?;
    let content_start = LENGTH_BYTES + length;
    let whole_bytes = content_start + metadata.data_len() as u64;
    if whole_bytes != file_bytes {
        return Err(problem(format!("it has {file_bytes} bytes of {whole_bytes}")));
    }
    Ok((metadata, content_start))
}
