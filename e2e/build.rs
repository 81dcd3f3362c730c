//! Tells the linker where the simulator finds libtorch at run time: it links the worker's library,
//! which has it in the same build as everything else.
//!
//! torch-sys's own flags reach only its own package, and `[env]` of the cargo configuration does
//! not exist outside cargo.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg-tests=-Wl,--disable-new-dtags,-rpath,{libtorch}/lib");
    }
}
