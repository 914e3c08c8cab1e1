//! `loops TARGET SECONDS`: calls what the fuzzers call, with the seeds and with what comes of them by chance. What it was
//! called with last is in `artifacts/TARGET-last` when it ends the program.

use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A xorshift is random enough.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// What comes of `seed` by a few changes, some of which take a part of `other`.
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
        bytes.truncate(4096);
        bytes
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, target, seconds] = &arguments[..] else {
        panic!("usage: loops TARGET SECONDS");
    };
    let body: fn(&[u8]) = match target.as_str() {
        "segment" => rsshm_channel::fuzzing::segment,
        "frames" => rsshm_channel::fuzzing::frames,
        "seats" => rsshm_channel::fuzzing::readers,
        "metas" => gstrsshm::fuzzing::metas,
        "events" => gstrsshm::fuzzing::events,
        "caps" => gstrsshm::fuzzing::caps,
        _ => panic!("there is no target {target}"),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(folder.join("seeds").join(target))
        .expect("seeds")
        .map(|entry| std::fs::read(entry.expect("a seed").path()).expect("a seed"))
        .collect();
    std::fs::create_dir_all(folder.join("artifacts")).expect("a folder");
    let last = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(format!("artifacts/{target}-last")))
        .expect("a file");
    let until = Instant::now() + Duration::from_secs_f64(seconds.parse().expect("seconds"));
    let mut random = Random(Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 20 | 1);
    let mut calls = 0u64;
    while Instant::now() < until {
        let (one, other) = (random.below(seeds.len()), random.below(seeds.len()));
        let bytes = random.change(&seeds[one], &seeds[other]);
        let _ = last.set_len(bytes.len() as u64);
        let _ = std::os::unix::fs::FileExt::write_all_at(&last, &bytes, 0);
        body(&bytes);
        calls += 1;
        // Some of them are changed further.
        if random.below(64) == 0 {
            if seeds.len() < 1000 {
                seeds.push(bytes);
            } else {
                let at = random.below(seeds.len());
                seeds[at] = bytes;
            }
        }
    }
    println!("{target}: {calls} calls in {seconds} s");
}
