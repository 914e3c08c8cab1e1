// SPDX-License-Identifier: MIT OR Apache-2.0

//! Gives the shared library its soname, and keeps the library in memory after `dlclose`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,librsshm.so.0");
    // A program may call `dlclose` while it still has open handles, whose threads then still run.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
