//! Tells the linker where this package's programs and tests find libtorch at run time.
//!
//! torch-sys's own flags reach only its own package, and `[env]` of the cargo configuration does
//! not exist outside cargo. Without the feature `torch` nothing here needs libtorch.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if std::env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{libtorch}/lib");
    }
}
