// SPDX-License-Identifier: MIT OR Apache-2.0

//! x

use rsshm_testkit::role::Role;
pub const ROLES: &[(&str, Role)] = &[];
