// SPDX-License-Identifier: MIT OR Apache-2.0

//! A camera that runs as a service.
//!
//! - `settings`: what to run, from a configuration file and the command line
//! - `child`: the process that publishes the camera
//! - `notify`: reports to the service manager

pub(crate) mod child;
pub(crate) mod notify;
pub(crate) mod settings;
