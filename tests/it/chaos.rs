// SPDX-License-Identifier: MIT OR Apache-2.0

//! A short run of `make chaos`, which kills and stops programs at arbitrary instructions.
//!
//! `RSSHM_CHAOS_SEED` may contain the seed of an earlier run. The test then repeats the mix of events of that run.

use std::{path::Path, time::Duration};

use rsshm_testkit::chaos::{Plan, new_seed, run};

#[test]
fn killed_and_stopped_programs_disturb_no_other() {
    let seed = std::env::var("RSSHM_CHAOS_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok()).unwrap_or_else(new_seed);
    let plan = |seconds, lossless| Plan {
        seed,
        time: Duration::from_secs(seconds),
        lossless,
        clean: true,
        objects: false,
    };
    let with_objects = Plan {
        objects: true,
        ..plan(12, false)
    };
    let outcome = run(
        &[plan(18, false), plan(14, true), with_objects],
        Path::new(env!("CARGO_TARGET_TMPDIR")),
    );
    if let Err(findings) = outcome {
        panic!("{findings}");
    }
}
