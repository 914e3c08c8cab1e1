// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compatibility: each installed muxer, payloader, encoder and parser, through a channel, compared with the same
//! without a channel.
//!
//! `plan` finds the elements in the registry and an input for each. A [`Case`] runs the element in one process and its
//! counterpart in another. Both record each buffer, and `compare` finds the differences. The program
//! `rsshm-compatibility` writes the results to docs/COMPATIBILITY.md, and fails if a result is worse than there.

mod assemblies;
mod case;
mod compare;
mod discover;
mod join;
mod made;
mod part;
mod plan;
mod record;
mod registry;
mod run;
mod settings;
mod stream;
mod table;

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

pub use case::{Case, Outcome, Steps, Verdict};
pub use run::{Options, check, run};

use crate::role::Role;

/// The roles of the processes of a run.
pub const ROLES: &[(&str, Role)] = &[(part::ROLE, part::play), (discover::ROLE, discover::play)];

/// Calls `work` for each item, in several threads. Returns the results in the order of the items.
fn parallel<T: Sync, R: Send>(items: &[T], jobs: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    // Relaxed, because the counter only hands out each index once.
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else {
                        return;
                    };
                    let result = work(item);
                    results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
