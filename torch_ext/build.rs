//! Owns compiling `cpp/` against libtorch, and telling the linker where libtorch lies.
//!
//! Does not fetch libtorch; `make setup` does, and writes its place where cargo reads it.
//!
//! The lines marked *rpath* are what every package with a binary or a test that reaches libtorch
//! repeats in its own build script: link arguments do not pass from a dependency to the binary.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-changed=build.rs");
    // rpath: from here to the end of `main`, without the compilation.
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!("cargo::error=libtorch not found: run `make setup`");
        return;
    };
    compile(&libtorch.join("include"));
    let lib = libtorch.join("lib");
    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
    // The old kind of tag (DT_RPATH) also holds for what libtorch itself asks for, and cargo's own
    // search path does not exist outside cargo.
    println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{}", lib.display());
}

fn compile(include: &std::path::Path) {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // libtorch's headers are not ours to warn about.
        .flag("-isystem")
        .flag(include)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // libtorch is compiled so, and some of its classes have further members without it.
        .define("NDEBUG", None)
        .file("cpp/autograd.cpp")
        .file("cpp/device.cpp")
        .file("cpp/ext.cpp")
        .file("cpp/graph.cpp")
        .compile("gradus_torch_ext");
}
