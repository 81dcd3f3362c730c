//! Owns loading libtorch's CUDA half at run time, if there is one.
//!
//! Does not link to it: the same binary runs on machines without CUDA.

use crate::TorchError;
use crate::ffi::{self, call};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The file that holds the CUDA half.
const LIBRARY: &str = "libtorch_cuda.so";

/// What came of looking for CUDA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaSupport {
    /// The library is loaded and sees devices.
    Available {
        /// The library's file.
        library: PathBuf,
        /// How many devices it sees.
        n_devices: usize,
    },
    /// The CPU it is.
    Unavailable {
        /// Why, as a clause for a log line.
        reason: String,
    },
}

/// Loads `libtorch_cuda.so` from `directory`; call it before anything asks tch about CUDA, since
/// libtorch remembers the first answer.
///
/// The library must be of the version that [`crate::libtorch_version`] says.
pub fn open_cuda(directory: &Path) -> CudaSupport {
    let library = directory.join(LIBRARY);
    if !library.is_file() {
        return unavailable(format!("there is no {LIBRARY} in `{}`", directory.display()));
    }
    if let Err(error) = open(&library) {
        return unavailable(error.to_string());
    }
    if !tch::Cuda::is_available() {
        return unavailable(format!("{LIBRARY} is loaded and finds no usable device"));
    }
    let n_devices = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    CudaSupport::Available { library, n_devices }
}

fn unavailable(reason: String) -> CudaSupport {
    CudaSupport::Unavailable { reason }
}

fn open(library: &Path) -> Result<(), TorchError> {
    let operation = "load its CUDA half";
    let path = CString::new(library.as_os_str().as_bytes()).map_err(|_| TorchError::Libtorch {
        operation,
        message: "the path holds a zero byte".to_owned(),
    })?;
    call(operation, |error| {
        // SAFETY: a string that ends in zero and lives through the call. Loading runs the library's
        // initialisers, which is what the user asked for by naming the directory.
        unsafe { ffi::gradus_open_library(path.as_ptr(), error) }
    })
}
