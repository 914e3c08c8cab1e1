// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests with segments in which another program has written garbage.

use std::{fs::File, os::unix::fs::FileExt, process::Stdio};

use rsshm_testkit::Random;

use crate::support::{Channel, Running, rsshm};

/// How many different segments of garbage are tried.
const ROUNDS: u64 = 35;

/// Whatever another program writes into a segment, no command crashes, and none goes on for ever.
#[test]
fn no_command_crashes_on_garbage() {
    for seed in 0..ROUNDS {
        let channel = Channel::new();
        let mut writer = channel.writer();
        let _reader = channel.reader();
        writer.send("metadata");
        writer.expect("2");
        writer.stop();
        let file = File::options().read(true).write(true).open(channel.segment()).unwrap();
        let size = file.metadata().unwrap().len();
        let field = |offset| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, offset).unwrap();
            u64::from_ne_bytes(bytes)
        };
        let (readers, ring, descriptors) = (field(80), field(96), field(112));
        let (start, end, count) = match seed % 7 {
            // Fields of the header that a program cannot check: times, seqs, a process.
            0 => (16, 32, 2),
            1 => (136, 152, 2),
            // The status, the reader table, the ring, the records of the first slots.
            2 => (256, 384, 10),
            3 => (readers, readers + 1024, 60),
            4 => (ring, ring + 1024, 60),
            5 => (descriptors, descriptors + 3 * 4096, 800),
            _ => (12, size, 1000),
        };
        let mut random = Random::new(seed);
        for _ in 0..count {
            let offset = start + random.below(end - start - 7);
            let value = match random.below(4) {
                0 => 0,
                1 => u64::MAX,
                2 => random.below(1 << 20),
                _ => random.number(),
            };
            file.write_all_at(&value.to_ne_bytes(), offset).unwrap();
        }
        let name = channel.to_string();
        for arguments in [
            format!("list {name}"),
            format!("info {name} --json"),
            format!("metrics {name}"),
            format!("top -b -n 1 -d 50ms {name}"),
            format!("check {name} --max-age 1s --min-fps 1 --during 50ms"),
            format!("wait {name} --timeout 50ms"),
            format!("snapshot {name} -o - --type raw --timeout 50ms"),
            format!("snapshot {name} -o - --timeout 50ms"),
            format!("clean {name} --dry-run"),
        ] {
            let mut command = rsshm(&arguments);
            // Frames may have any bytes, so the output is not text.
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut running = Running::start(command);
            let code = running.wait();
            assert!(
                code.is_some_and(|code| (0..=5).contains(&code)),
                "seed {seed}, {arguments}: {code:?}"
            );
        }
        writer.kill();
    }
}
