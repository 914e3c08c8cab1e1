// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of librsshm. Each test compiles a C or C++ program, links it with the shared library, and runs it. Most of these
//! programs run beside a writer or a reader in Rust.
#![allow(clippy::incompatible_msrv)] // the tests may need a newer Rust than the library

mod descriptors;
mod directory;
mod examples;
mod exports;
mod ffmpeg;
mod obs;
mod programs;
mod reading;
mod support;
mod writing;
