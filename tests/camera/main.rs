//! The elements on a real V4L2 device, in the machine that `tests/camera/vm` runs: `make test-camera`.
//!
//! Its cameras are those of the kernel's test driver vivid, whose picture is known and which can be told to fail.

mod capture;
#[path = "../common/mod.rs"]
mod common;
mod device;
#[path = "../display/mod.rs"]
mod display;
mod faults;
mod formats;
mod screen;
mod time;
mod userptr;
