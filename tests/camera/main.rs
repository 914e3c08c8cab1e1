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

/// Here and not in the machine: emulated, a look at all plugins takes longer than a test.
#[test]
fn the_plugin_is_found_by_the_programs_that_the_tests_start() {
    common::init();
    let channel = common::Channel::new();
    common::launch(&format!("videotestsrc num-buffers=1 ! rsshmsink name={channel}")).wait_ok();
}
