//! Has functions of equal code linked as one where the linker can: 0.4 MB of the program. Whether it can is tried, as
//! targets, toolchains and settings differ in the linker that they call.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const ONE_OF_EQUALS: &str = "-Wl,--icf=all";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if is_linked_with(ONE_OF_EQUALS)? {
        println!("cargo::rustc-link-arg-bins={ONE_OF_EQUALS}");
    }
    Ok(())
}

/// Whether this build's compiler links the smallest program so, for its target and with its settings.
fn is_linked_with(argument: &str) -> Result<bool, Box<dyn Error>> {
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names a folder")?);
    let source = folder.join("smallest.rs");
    std::fs::write(&source, "fn main() {}\n")?;
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("cargo names the compiler")?);
    rustc.arg("--target").arg(env::var("TARGET")?);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let settings = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(settings.split('\u{1f}').filter(|flag| !flag.is_empty()));
    rustc.arg("-C").arg(format!("link-arg={argument}"));
    rustc.arg("-o").arg(folder.join("smallest")).arg(&source);
    let status = rustc.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(status.success())
}
