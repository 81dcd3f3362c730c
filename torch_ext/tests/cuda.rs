//! CUDA is found or not, each reason by its name, and what is done on a device is refused elsewhere.
//!
//! Where `GRADUS_LIBTORCH` names the `lib` folder of a CUDA build, the tests at the end look at
//! it; those that need a device are for machines that have one.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};
use torch_ext::{
    CUDA_LIBRARY, Cuda, Event, Graph, HostCopies, NoCuda, Stream, TorchError, clip_gradient_norm,
    device_memory, libtorch_folder, open_cuda, release_device_memory, reset_peak_memory,
    set_intra_op_threads, synchronize, use_exact_cuda_products,
};

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn folders_without_the_library_are_named() {
    let folders = [folder("empty"), folder("empty_too")];
    let reason = open_cuda(&folders).unwrap_err();
    assert_eq!(reason.label(), "no_library");
    assert!(reason.is_ordinary());
    for folder in &folders {
        assert!(reason.to_string().contains(folder.to_str().unwrap()), "{reason}");
    }
    assert!(reason.remedy().contains("--libtorch"), "{}", reason.remedy());
}

#[test]
fn a_library_without_its_libtorch_is_of_another_build() {
    let folder = folder("alone");
    fs::write(folder.join(CUDA_LIBRARY), "not a library").unwrap();
    let reason = open_cuda(&[folder]).unwrap_err();
    assert!(matches!(reason, NoCuda::OtherBuild { .. }), "{reason}");
    assert!(!reason.is_ordinary());
}

#[test]
fn a_library_beside_the_running_libtorch_comes_after_the_driver() {
    // A copy of the very libtorch that runs, and beside it a text that would not load: whoever has no
    // driver never finds out, and nothing is loaded for nothing.
    let folder = folder("not_loadable");
    let beside = folder.join("libtorch_cpu.so");
    if !beside.exists() {
        let running = libtorch_folder().unwrap().join("libtorch_cpu.so");
        std::os::unix::fs::symlink(running, &beside).unwrap();
    }
    fs::write(folder.join(CUDA_LIBRARY), "not a library").unwrap();
    let reason = open_cuda(&[folder]).unwrap_err();
    let expected = ["no_driver", "no_device", "not_loadable"];
    assert!(expected.contains(&reason.label()), "{reason}");
}

#[test]
fn the_folder_of_libtorch_is_that_of_its_library() {
    assert!(libtorch_folder().unwrap().join("libtorch_cpu.so").is_file());
}

#[test]
fn what_only_a_device_has_is_refused_without_one() {
    if found().is_some() {
        eprintln!("SKIPPED: there is a device");
        return;
    }
    for device in [Device::Cpu, Device::Cuda(0), Device::Mps] {
        let refusals = [
            device_memory(device).map(drop),
            reset_peak_memory(device),
            release_device_memory(device),
            Stream::beside(device).map(drop),
            Stream::current(device).map(drop),
            Graph::record(device, || ()).map(drop),
        ];
        for refused in refusals {
            assert!(matches!(refused, Err(TorchError::Device { .. })), "{refused:?}");
        }
    }
    assert!(matches!(synchronize(Device::Cuda(0)), Err(TorchError::Device { .. })));
    // The CPU has always done what it was given.
    synchronize(Device::Cpu).unwrap();
    use_exact_cuda_products().unwrap();
}

#[test]
fn copies_of_the_cpu_are_there_at_once_and_their_own() {
    let mut source = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).transpose(0, 1);
    let copies = HostCopies::begin(vec![source.shallow_clone()]).unwrap();
    assert!(copies.read().is_none());
    drop(source.zero_());
    let copies = copies.wait().unwrap();
    assert_eq!(
        Vec::<f32>::try_from(copies[0].reshape([6])).unwrap(),
        [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    );
}

/// The device of a test that cannot do without; says so where there is none.
fn device() -> Option<Device> {
    if found().is_none() {
        eprintln!("SKIPPED: GRADUS_LIBTORCH names no CUDA libtorch with a device");
        return None;
    }
    Some(Device::Cuda(0))
}

/// The CUDA that the environment names, looked for once.
fn found() -> Option<&'static Cuda> {
    static FOUND: OnceLock<Option<Cuda>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let folder = PathBuf::from(std::env::var_os("GRADUS_LIBTORCH")?);
        open_cuda(&[folder]).ok()
    });
    found.as_ref()
}

#[test]
fn a_device_keeps_count_of_its_memory() {
    let Some(device) = device() else { return };
    let described = found().map(|cuda| cuda.devices[0].clone()).unwrap();
    assert!(described.memory_bytes > 0 && !described.name.is_empty());
    reset_peak_memory(device).unwrap();
    let before = device_memory(device).unwrap();
    let held = Tensor::zeros([1 << 20], (Kind::Float, device));
    let with = device_memory(device).unwrap();
    assert!(with.allocated_bytes >= before.allocated_bytes + (4 << 20), "{before:?} {with:?}");
    drop(held);
    let after = device_memory(device).unwrap();
    assert!(after.allocated_bytes < with.allocated_bytes);
    assert!(after.allocated_peak_bytes >= with.allocated_bytes);
    assert!(after.reserved_bytes >= after.allocated_bytes);
    release_device_memory(device).unwrap();
    let released = device_memory(device).unwrap();
    assert!(released.reserved_bytes < with.reserved_bytes, "{released:?}");
}

#[test]
fn copies_are_those_of_the_moment_although_the_device_goes_on() {
    let Some(device) = device() else { return };
    set_intra_op_threads(1).unwrap();
    let mut source = Tensor::ones([1 << 24], (Kind::Float, device));
    for round in 0..20 {
        let expected = f64::from(round + 1);
        let copies = HostCopies::begin(vec![source.shallow_clone()]).unwrap();
        let read = copies.read().unwrap();
        Stream::current(device).unwrap().wait_for(&read).unwrap();
        source += 1.0;
        let copies = copies.wait().unwrap();
        let (least, most) = (copies[0].min(), copies[0].max());
        assert_eq!((least.double_value(&[]), most.double_value(&[])), (expected, expected));
    }
}

#[test]
fn marks_measure_the_work_between_them() {
    let Some(device) = device() else { return };
    let stream = Stream::beside(device).unwrap();
    let (first, last) = stream
        .within(|| {
            let x = Tensor::ones([2048, 2048], (Kind::Float, device));
            let first = Event::with_time(stream).unwrap();
            let product = x.matmul(&x);
            let last = Event::with_time(stream).unwrap();
            drop(product);
            (first, last)
        })
        .unwrap();
    last.wait().unwrap();
    assert!(first.milliseconds_to(&last).unwrap() > 0.0);
    assert_ne!(Stream::current(device).unwrap(), stream);
}

#[test]
fn a_device_clips_its_gradients_without_being_asked_for_the_norm() {
    let Some(device) = device() else { return };
    // The gradient is 3 and 4 times `scale`: a norm of five times it.
    for (scale, expected) in [(2.0, 0.3), (0.1, 0.3), (f64::INFINITY, f64::INFINITY)] {
        let weights = Tensor::ones([2], (Kind::Float, device)).set_requires_grad(true);
        let factors = Tensor::from_slice(&[3.0_f32, 4.0]).to_device(device) * scale;
        (&weights * factors).sum(Kind::Float).backward();
        let norm = clip_gradient_norm(&[&weights], 0.5).unwrap().double_value(&[]);
        assert!(norm == 5.0 * scale || (norm / (5.0 * scale) - 1.0).abs() < 1e-6, "{norm}");
        let found = weights.grad().double_value(&[0]);
        assert!(found == expected || (found - expected).abs() < 1e-6, "{found}");
    }
}

#[test]
fn recorded_work_is_done_again_with_what_its_tensors_hold_by_then() {
    let Some(device) = device() else { return };
    let mut input = Tensor::ones([256, 256], (Kind::Float, device));
    let read = input.shallow_clone();
    let work = move || read.matmul(&read) + 1.0;
    // Once without recording, so that workspaces are there.
    drop(work());
    let (graph, output) = Graph::record(device, work).unwrap();
    for factor in [1.0, 2.0, -3.0] {
        drop(input.fill_(factor));
        graph.replay().unwrap();
        synchronize(device).unwrap();
        let expected = 256.0 * factor * factor + 1.0;
        let (least, most) = (output.min(), output.max());
        assert_eq!((least.double_value(&[]), most.double_value(&[])), (expected, expected));
    }
}
