// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the channel through its public interface. They form one program, which has one module for each behaviour.
//!
//! A module that needs other processes has a table `ROLES` of the functions that run in those processes.
#![allow(clippy::incompatible_msrv)] // the tests may need a newer Rust than the crate

mod caps_texts;
mod containers;
mod copies;
mod directory;
mod end_of_stream;
mod events;
mod extremes;
mod failpoints;
mod fields;
mod first_frames;
mod following;
mod hostile;
mod inspection;
mod interruption;
mod keyframe_requests;
mod keyframes;
mod leftovers;
mod limits;
mod lossless;
mod lossless_takeovers;
mod many;
mod memory_limits;
mod memory_use;
mod messages;
mod metadata;
mod objects;
mod observers;
mod pages;
mod pairing;
mod parsing;
mod perms;
mod protocol_doc;
mod quotas;
mod reader_table;
mod runs;
mod semaphore;
mod shared_slots;
mod slots;
mod space;
mod start_at_headers;
mod support;

rsshm_testkit::roles!(
    inspection::ROLES,
    containers::ROLES,
    directory::ROLES,
    end_of_stream::ROLES,
    events::ROLES,
    failpoints::ROLES,
    first_frames::ROLES,
    following::ROLES,
    hostile::ROLES,
    hostile::honest::ROLES,
    hostile::read_only::ROLES,
    keyframes::streams::ROLES,
    leftovers::ROLES,
    limits::ROLES,
    lossless::ROLES,
    lossless_takeovers::ROLES,
    many::ROLES,
    memory_limits::ROLES,
    memory_use::ROLES,
    messages::ROLES,
    objects::ROLES,
    objects::buffers::ROLES,
    objects::containers::ROLES,
    objects::deaths::ROLES,
    objects::frames::ROLES,
    objects::hostile::ROLES,
    objects::hostile::files::ROLES,
    objects::hostile::servers::ROLES,
    objects::lossless::ROLES,
    objects::memory::ROLES,
    objects::sockets::ROLES,
    pages::ROLES,
    perms::ROLES,
    reader_table::ROLES,
    runs::ROLES,
    semaphore::ROLES,
    space::ROLES,
);
