// SPDX-License-Identifier: MIT OR Apache-2.0

//! The elements with a V4L2 device. `make test-camera` runs these tests in the virtual machine of `tests/camera/vm`.
//!
//! The cameras are those of the kernel's test driver vivid, whose picture is known and which can inject faults. Tests
//! that need a camera are marked as ignored. `tests/camera/each` runs each of them in its own process.

mod capture;
mod device;
mod dmabuf;
mod faults;
mod formats;
mod on_demand;
mod readers;
mod time;
mod userptr;

use rsshm_testkit::{
    Channel,
    gst::{init, run_to_end},
};

rsshm_testkit::roles!(readers::ROLES);

/// This test runs on the host, not in the virtual machine. It creates the registries of the test program and of
/// gst-launch-1.0. In the emulated machine, the first scan of all plugins takes longer than a test may take.
#[test]
fn programs_find_plugin() {
    init();
    let channel = Channel::new();
    run_to_end(&format!("videotestsrc num-buffers=1 ! rsshmsink name={channel}"));
}
