// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests of the elements. Each module has the name of the behaviour that it tests.

mod absence;
mod audio;
mod bad_input;
mod caps_changes;
mod caps_texts;
mod chaos;
mod clocks;
mod compatibility;
mod convert;
mod descriptors;
mod devices;
mod directory;
mod events;
mod faults;
mod formats;
mod hostile;
mod isolation;
mod keyframe_requests;
mod keyframes;
mod lifecycle;
mod meta_table;
mod metas;
mod on_demand;
mod on_time;
mod one_of_everything;
mod permissions;
mod pipelines;
mod screen;
mod shared_pipelines;
mod small_buffers;
mod small_cgroup;
mod small_shm;
mod start_order;
mod stopping;
mod stream_headers;
mod syscalls;
mod time_segments;
mod timestamps;
mod upstream_events;
mod video_formats;
mod zero_copy;

rsshm_testkit::roles!(
    rsshm_testkit::chaos::ROLES,
    rsshm_testkit::compatibility::ROLES,
    rsshm_testkit::gst::sequence::ROLES,
    descriptors::ROLES,
    directory::ROLES,
    faults::ROLES,
    meta_table::ROLES,
    metas::ROLES,
    one_of_everything::ROLES,
    permissions::ROLES,
    small_buffers::ROLES,
    small_cgroup::ROLES,
    small_shm::ROLES,
);
