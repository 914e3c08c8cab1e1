// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the program `rsshm` on real channels, whose writers and readers are separate processes.

mod acting;
mod camera;
mod cleaning;
mod colours;
mod control_characters;
mod demo;
mod directory;
mod forms;
mod hostile;
mod kinds;
mod line;
mod looking;
mod manners;
mod measuring;
mod pictures;
mod publishing;
mod restoring;
mod slow;
mod states;
mod support;
mod terminal;
mod top;
mod waiting;
mod watching;

rsshm_testkit::roles!(support::ROLES);
