//! Owns finding libtorch's CUDA half at run time, and saying why there is none.
//!
//! Does not link to it: the same program runs on machines without CUDA. Does not choose a device.

use std::ffi::{CString, c_int};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use thiserror::Error;

use crate::TorchError;
use crate::build_id::build_id;
use crate::ffi::{self, call, call_for_text, take_text};

/// The file that holds the CUDA half.
pub const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// The file that lies beside it and must be of the build that runs here.
const CPU_LIBRARY: &str = "libtorch_cpu.so";

/// A CUDA half that is loaded, and what it can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuda {
    /// The library's file.
    pub library: PathBuf,
    /// The CUDA that the library is made for.
    pub runtime: CudaVersion,
    /// The newest CUDA that the driver can serve.
    pub driver: CudaVersion,
    /// At least one, in libtorch's order.
    pub devices: Vec<CudaDevice>,
}

/// One device as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaDevice {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// All its memory.
    pub memory_bytes: u64,
    /// The compute capability, such as (9, 0).
    pub capability: (i32, i32),
}

/// A version as CUDA counts: 13000 is 13.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion(pub i32);

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// Why there is no CUDA.
#[derive(Debug, Error)]
pub enum NoCuda {
    /// No folder has the library.
    #[error("there is no `{CUDA_LIBRARY}` in {}", names_of(.folders))]
    NoLibrary {
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// The library belongs to another build of libtorch than the one that runs.
    #[error(
        "`{}` is not of the build of libtorch that runs here ({found}, and {running} runs)",
        library.display()
    )]
    OtherBuild {
        /// The library.
        library: PathBuf,
        /// The build that runs.
        running: String,
        /// The build that the library belongs to.
        found: String,
    },
    /// There is no NVIDIA driver on this machine.
    #[error("`{}` is there, and there is no NVIDIA driver", library.display())]
    NoDriver {
        /// The library, which is not loaded.
        library: PathBuf,
    },
    /// The driver finds no device, or cannot be used.
    #[error("the NVIDIA driver for CUDA {driver} finds no device: {message}")]
    NoDevice {
        /// The newest CUDA that the driver can serve.
        driver: CudaVersion,
        /// The driver's words.
        message: String,
    },
    /// The library cannot be loaded, for instance because it needs others that are not there.
    #[error("`{}` does not load: {message}", library.display())]
    NotLoadable {
        /// The library.
        library: PathBuf,
        /// The loader's words.
        message: String,
    },
    /// The library needs a newer driver.
    #[error("the NVIDIA driver serves CUDA up to {driver}, and libtorch needs {runtime}")]
    OldDriver {
        /// What the driver can serve.
        driver: CudaVersion,
        /// What the library is made for.
        runtime: CudaVersion,
    },
    /// The driver finds devices and libtorch cannot use them.
    #[error("libtorch cannot use the devices that the NVIDIA driver finds: {message}")]
    Unusable {
        /// libtorch's words.
        message: String,
    },
    /// Something asked libtorch for CUDA before the library was loaded.
    #[error("libtorch was asked for CUDA before `{CUDA_LIBRARY}` was loaded, and keeps its answer")]
    LoadedTooLate,
    /// A question to the driver or to libtorch failed.
    #[error("could not ask for devices")]
    Question(#[from] TorchError),
}

impl NoCuda {
    /// A name for programs that read it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoLibrary { .. } => "no_library",
            Self::OtherBuild { .. } => "other_build",
            Self::NoDriver { .. } => "no_driver",
            Self::NoDevice { .. } => "no_device",
            Self::NotLoadable { .. } => "not_loadable",
            Self::OldDriver { .. } => "old_driver",
            Self::Unusable { .. } => "unusable",
            Self::LoadedTooLate => "loaded_too_late",
            Self::Question(_) => "question_failed",
        }
    }

    /// What would mend it, as a sentence without its stop.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoLibrary { .. } => format!(
                "name the `lib` folder of a CUDA build of libtorch {} by `--libtorch` or \
                 GRADUS_LIBTORCH",
                crate::libtorch_version()
            ),
            Self::OtherBuild { .. } => format!(
                "use the CUDA half of the very build that this program runs with: both libraries \
                 are in one wheel of torch {}",
                crate::libtorch_version()
            ),
            Self::NoDriver { .. } => {
                "install the NVIDIA driver, or give the container its devices".to_owned()
            }
            Self::NoDevice { .. } => {
                "see what `nvidia-smi` lists, and whether CUDA_VISIBLE_DEVICES hides it".to_owned()
            }
            Self::NotLoadable { .. } => {
                "install the libraries that it names beside it, as its wheel asks for them".into()
            }
            Self::OldDriver { runtime, .. } => {
                format!("install an NVIDIA driver for CUDA {runtime} or newer")
            }
            Self::Unusable { .. } => "see the driver's log in `dmesg`".to_owned(),
            Self::LoadedTooLate | Self::Question(_) => "report it as a bug of Gradus".to_owned(),
        }
    }

    /// Whether this is what a machine without a GPU looks like, and no half-finished installation.
    pub fn is_ordinary(&self) -> bool {
        matches!(self, Self::NoLibrary { .. } | Self::NoDriver { .. } | Self::NoDevice { .. })
    }
}

fn names_of(folders: &[PathBuf]) -> String {
    let names: Vec<_> = folders.iter().map(|folder| format!("`{}`", folder.display())).collect();
    names.join(" or ")
}

/// The folder that this process's libtorch was loaded from.
pub fn libtorch_folder() -> Result<PathBuf, TorchError> {
    let operation = "tell where it is";
    let file = call_for_text(operation, |text, error| {
        // SAFETY: two valid pointers, used during the call only.
        unsafe { ffi::gradus_libtorch_file(text, error) }
    })?;
    let folder = Path::new(&file).parent().unwrap_or(Path::new("/"));
    folder.canonicalize().map_err(|source| TorchError::Libtorch {
        operation,
        message: format!("`{}`: {source}", folder.display()),
    })
}

/// Loads the CUDA half from the first of these folders that has it, unless it is of another build
/// than the libtorch that runs, or there is nothing that it could use: then nothing is loaded.
///
/// To be called before anything else asks libtorch about CUDA, seeding included: libtorch keeps the
/// first answer.
pub fn open_cuda(candidates: &[PathBuf]) -> Result<Cuda, NoCuda> {
    let libraries = candidates.iter().map(|folder| folder.join(CUDA_LIBRARY));
    let Some(library) = libraries.into_iter().find(|library| library.is_file()) else {
        return Err(NoCuda::NoLibrary { folders: candidates.to_vec() });
    };
    check_build(&library)?;
    let driver = usable_driver(&library)?;
    load(&library)?;
    let half = Half::look()?;
    if !half.is_taken {
        return Err(NoCuda::LoadedTooLate);
    }
    if driver < half.runtime {
        return Err(NoCuda::OldDriver { driver, runtime: half.runtime });
    }
    initialize()?;
    let devices = (0..half.n_devices).map(device).collect::<Result<Vec<_>, _>>()?;
    if devices.is_empty() {
        return Err(NoCuda::Unusable { message: "it counts none".to_owned() });
    }
    Ok(Cuda { library, runtime: half.runtime, driver, devices })
}

/// Refuses a library whose neighbour is another libtorch than the one that runs: what both define
/// would be found in either, and be of two layouts.
fn check_build(library: &Path) -> Result<(), NoCuda> {
    let running = libtorch_folder()?.join(CPU_LIBRARY);
    let beside = library.with_file_name(CPU_LIBRARY);
    if beside.canonicalize().is_ok_and(|beside| beside == running) {
        return Ok(());
    }
    let id = |path: &Path| match build_id(path) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err("a build without an identifier".to_owned()),
        Err(error) => Err(format!("`{}` cannot be read: {error}", path.display())),
    };
    match (id(&running), id(&beside)) {
        (Ok(running), Ok(found)) if running == found => Ok(()),
        (running, found) => {
            let [running, found] = [running, found].map(|id| id.unwrap_or_else(|words| words));
            Err(NoCuda::OtherBuild { library: library.to_owned(), running, found })
        }
    }
}

/// What the driver can serve, if there is one that finds a device.
fn usable_driver(library: &Path) -> Result<CudaVersion, NoCuda> {
    let (mut is_there, mut version, mut n_devices) = (false, 0, 0);
    let mut problem = ptr::null_mut();
    call("ask the NVIDIA driver", |error| {
        let (is_there, version) = (&raw mut is_there, &raw mut version);
        let (n_devices, problem) = (&raw mut n_devices, &raw mut problem);
        // SAFETY: five valid pointers, used during the call only.
        unsafe { ffi::gradus_cuda_driver(is_there, version, n_devices, problem, error) }
    })?;
    let message = (!problem.is_null()).then(|| take_text(problem));
    let driver = CudaVersion(version);
    match message {
        _ if !is_there => Err(NoCuda::NoDriver { library: library.to_owned() }),
        Some(message) => Err(NoCuda::NoDevice { driver, message }),
        None if n_devices == 0 => Err(NoCuda::NoDevice { driver, message: "it lists none".into() }),
        None => Ok(driver),
    }
}

fn load(library: &Path) -> Result<(), NoCuda> {
    let operation = "load its CUDA half";
    let path = CString::new(library.as_os_str().as_bytes()).map_err(|_| TorchError::Libtorch {
        operation,
        message: "the path holds a zero byte".to_owned(),
    })?;
    let opened = call(operation, |error| {
        // SAFETY: a string that ends in zero and lives through the call. Loading runs the library's
        // initialisers, which is what the user asked for by naming the directory.
        unsafe { ffi::gradus_open_library(path.as_ptr(), error) }
    });
    opened.map_err(|error| match error {
        TorchError::Libtorch { message, .. } => {
            NoCuda::NotLoadable { library: library.to_owned(), message }
        }
        other => NoCuda::Question(other),
    })
}

/// What libtorch makes of the library once it is loaded.
struct Half {
    is_taken: bool,
    runtime: CudaVersion,
    n_devices: c_int,
}

impl Half {
    fn look() -> Result<Self, TorchError> {
        let (mut is_taken, mut runtime, mut n_devices) = (false, 0, 0);
        call("tell its devices", |error| {
            let (is_taken, runtime) = (&raw mut is_taken, &raw mut runtime);
            // SAFETY: four valid pointers, used during the call only.
            unsafe { ffi::gradus_cuda_half(is_taken, runtime, &raw mut n_devices, error) }
        })?;
        Ok(Self { is_taken, runtime: CudaVersion(runtime), n_devices })
    }
}

fn initialize() -> Result<(), NoCuda> {
    let made = call("initialise CUDA", |error| {
        // SAFETY: a valid pointer, used during the call only.
        unsafe { ffi::gradus_initialize_cuda(error) }
    });
    made.map_err(|error| match error {
        TorchError::Libtorch { message, .. } => NoCuda::Unusable { message },
        other => NoCuda::Question(other),
    })
}

fn device(index: c_int) -> Result<CudaDevice, TorchError> {
    let (mut memory_bytes, mut major, mut minor) = (0, 0, 0);
    let name = call_for_text("describe a device", |name, error| {
        let capability = (&raw mut major, &raw mut minor);
        // SAFETY: five valid pointers, used during the call only.
        unsafe {
            ffi::gradus_cuda_device(
                index,
                name,
                &raw mut memory_bytes,
                capability.0,
                capability.1,
                error,
            )
        }
    })?;
    Ok(CudaDevice { name, memory_bytes, capability: (major, minor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(CudaVersion(13000).to_string(), "13.0");
        assert_eq!(CudaVersion(12040).to_string(), "12.4");
        assert!(CudaVersion(12080) < CudaVersion(13000));
    }

    #[test]
    fn a_library_beside_another_libtorch_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let refused = check_build(&folder.join(CUDA_LIBRARY)).unwrap_err();
        assert_eq!(refused.label(), "other_build");
        assert!(refused.to_string().contains("cannot be read"), "{refused}");
        let running = libtorch_folder().unwrap();
        check_build(&running.join(CUDA_LIBRARY)).unwrap();
    }

    #[test]
    fn the_library_that_runs_has_a_build_identifier() {
        let id = build_id(&libtorch_folder().unwrap().join(CPU_LIBRARY)).unwrap().unwrap();
        assert_eq!(id.len(), 40, "{id}");
    }
}
