// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process that does all the time what `rsshm clean` does. It is killed and stopped in it too.
//!
//! It may remove only what nobody has. If it took the files of a living writer, the writer's service would say so. If it
//! took those of a living reader, the seqs of the next writer would begin again, which the reader's checks find.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use rsshm_channel::{ChannelName, Leftover};

use super::{
    assignment::{Assignment, ProcessContext},
    board::request,
};

/// The pause between two attempts. Without it, the process would take a processor of its own.
const PAUSE: Duration = Duration::from_millis(2);

/// Plays a cleaner until the run asks it to end.
pub fn play(assignment: Assignment) {
    let context = ProcessContext::new(assignment);
    let name = ChannelName::new(context.assignment.channel.clone()).unwrap();
    while context.board.request.load(Relaxed) == request::CONTINUE {
        let counter = match Leftover::remove(&name) {
            Ok(Leftover::Removable) => &context.counters.removed,
            Ok(_) => &context.counters.kept,
            Err(error) => {
                context.found_other(&format!("clean: {error}"));
                return;
            }
        };
        counter.fetch_add(1, Relaxed);
        std::thread::sleep(PAUSE);
    }
}
