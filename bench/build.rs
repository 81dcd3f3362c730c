//! Tells the linker where the benchmark program finds libtorch at run time.
//!
//! torch-sys's own flags reach only its own package, and `[env]` of the cargo configuration does
//! not exist outside cargo.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{libtorch}/lib");
    }
}
