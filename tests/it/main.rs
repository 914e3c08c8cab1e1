// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests of the elements. Each module has the name of the behaviour that it tests.

mod bad_input;
mod caps_changes;
mod chaos;
mod clocks;
mod compatibility;
mod devices;
mod events;
mod faults;
mod formats;
mod hostile;
mod isolation;
mod keyframes;
mod lifecycle;
mod metas;
mod on_time;
mod permissions;
mod pipelines;
mod screen;
mod small_shm;
mod start_order;
mod stopping;
mod syscalls;
mod time_segments;
mod timestamps;
mod upstream_events;
mod zero_copy;

rsshm_testkit::roles!(
    rsshm_testkit::chaos::ROLES,
    rsshm_testkit::compatibility::ROLES,
    rsshm_testkit::gst::sequence::ROLES,
    faults::ROLES,
    metas::ROLES,
    permissions::ROLES,
    small_shm::ROLES,
);
