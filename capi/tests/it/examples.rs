// SPDX-License-Identifier: MIT OR Apache-2.0

//! The examples run as they are.

use rsshm_testkit::Channel;

use crate::support::Program;

#[test]
fn c_examples_work_together() {
    let (reader, writer) = (Program::new("examples/reader.c"), Program::new("examples/writer.c"));
    let channel = Channel::new();
    let mut reading = reader.start(&[channel.as_str()]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    writer.start(&[channel.as_str(), "20"]).wait_ok();
    let output = reading.wait_ok();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 20, "{output}");
    for (index, line) in lines.iter().enumerate() {
        let expected = format!("frame {}: GRAY8 640x360, 230400 bytes from {index}", index + 1);
        assert_eq!(*line, expected);
    }
}
