//! Watches what macros read at compile time: the migrations and the built web application.

fn main() {
    println!("cargo::rerun-if-changed=../migrations/sqlite");
    println!("cargo::rerun-if-changed=../migrations/postgres");
    // The folder is made here, because Cargo takes a missing one for a changed one and would
    // compile the coordinator anew each time.
    let dashboard = "../dashboards/web/dist";
    if let Err(error) = std::fs::create_dir_all(dashboard) {
        println!("cargo::warning=could not make `{dashboard}`: {error}");
    }
    println!("cargo::rerun-if-changed={dashboard}");
}
