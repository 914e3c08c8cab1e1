// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the body of a fuzz target without cargo-fuzz, on the target's seeds and on random changes of the seeds.
//!
//! ```text
//! rsshm-fuzz-loops TARGET SECONDS
//! ```
//!
//! If the body crashes the program, `artifacts/TARGET-last` contains the input of that call.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rsshm_testkit::Random;

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 8] = [
    ("segment", rsshm_channel::fuzzing::segment),
    ("frames", rsshm_channel::fuzzing::frames),
    ("objects", rsshm_channel::fuzzing::objects),
    ("readers", rsshm_channel::fuzzing::readers),
    ("metas", gstrsshm::fuzzing::metas),
    ("events", gstrsshm::fuzzing::events),
    ("caps", gstrsshm::fuzzing::caps),
    ("capi", rsshm::fuzzing::calls),
];

/// The largest input in bytes.
const MAX_INPUT_SIZE: usize = 4096;
/// The largest number of inputs that are kept for further changes.
const MAX_INPUTS: usize = 1000;
/// On average, one of this many inputs is kept for further changes.
const KEEP_ONE_OF: usize = 64;

/// Makes new inputs by random changes of older ones.
struct Mutator(Random);

impl Mutator {
    fn below(&mut self, limit: usize) -> usize {
        self.0.below(limit as u64) as usize
    }

    /// A copy of `seed` with a few random changes. Some changes insert a part of `other`.
    fn change(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 => {
                    let from = self.below(other.len() + 1);
                    bytes.splice(at..at, other[from..].iter().take(64).copied());
                }
                3 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                4 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                _ if at < bytes.len() => bytes[at] = self.below(256) as u8,
                _ => {}
            }
        }
        bytes.truncate(MAX_INPUT_SIZE);
        bytes
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, target, seconds] = &arguments[..] else {
        panic!(
            "usage: rsshm-fuzz-loops TARGET SECONDS; targets: {:?}",
            TARGETS.map(|(name, _)| name)
        );
    };
    let (_, body) = TARGETS
        .into_iter()
        .find(|(name, _)| name == target)
        .unwrap_or_else(|| panic!("there is no target {target}, only {:?}", TARGETS.map(|(name, _)| name)));
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(directory.join("seeds").join(target))
        .expect("the target has seeds")
        .map(|entry| std::fs::read(entry.expect("a seed").path()).expect("the seed can be read"))
        .collect();
    std::fs::create_dir_all(directory.join("artifacts")).expect("the directory artifacts can be created");
    let last_input = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join(format!("artifacts/{target}-last")))
        .expect("the file of the last input can be created");
    let until = Instant::now() + Duration::from_secs_f64(seconds.parse().expect("SECONDS is a number"));
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    let mut random = Mutator(Random::new(seed ^ u64::from(std::process::id()) << 20));
    let mut calls = 0u64;
    while Instant::now() < until {
        let (one, other) = (random.below(inputs.len()), random.below(inputs.len()));
        let bytes = random.change(&inputs[one], &inputs[other]);
        let _ = last_input.set_len(bytes.len() as u64);
        let _ = last_input.write_all_at(&bytes, 0);
        body(&bytes);
        calls += 1;
        // Some inputs are kept, so that a later iteration can change them further.
        if random.below(KEEP_ONE_OF) == 0 {
            if inputs.len() < MAX_INPUTS {
                inputs.push(bytes);
            } else {
                let index = random.below(inputs.len());
                inputs[index] = bytes;
            }
        }
    }
    println!("{target}: {calls} calls in {seconds} s");
}
