// SPDX-License-Identifier: MIT OR Apache-2.0

//! A writer in a control group with a memory limit. Whatever its readers do, the kernel never kills the writer.
//!
//! The writers run in control groups; the readers run in the test, outside these groups.

use std::{
    collections::VecDeque,
    fs::File,
    io::Write,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, ChannelName, Error, Frame, Next, ReadLimits, Reader, ServiceThread, SpaceLimit, Writer, WriterOptions,
};
use rsshm_testkit::{
    Cgroup, Channel, PATIENCE, Process, need_real_machine,
    role::{self, Role, listen, say},
    skip,
};

use crate::support::{ChannelExt, SECOND, check_bytes, descriptor, is_in_place, slots};

const MIB: u64 = 1 << 20;
/// The size of most frames.
const FRAME: u64 = MIB;

pub const ROLES: &[(&str, Role)] = &[
    ("memory_limits/writer", writer),
    ("memory_limits/first frame", first_frame),
    ("memory_limits/no limit", |arguments| no_limit(arguments[0])),
    ("memory_limits/page cache", page_cache),
];

/// A new control group with a limit of this many MiB. Skips the test if there can be none.
macro_rules! need_cgroup {
    ($mib:expr) => {
        match Cgroup::new() {
            Ok(group) => {
                group.set_limit($mib * MIB);
                group
            }
            Err(reason) => skip!("{reason}"),
        }
    };
}

/// Publishes two hundred frames a second. The arguments are the channel, the size of a frame in bytes, and `max-slots`.
///
/// For each line from the test, the writer says how many frames it has published, how many slots have memory, and the
/// shortages that it has reported. A line with a number changes the size of the frames and the caps.
fn writer(arguments: &[&str]) {
    let &[channel, size, max_slots] = arguments else {
        panic!("{arguments:?}");
    };
    let lines = role::lines();
    let mut size: usize = size.parse().unwrap();
    let options = slots(max_slots.parse().unwrap());
    let writer = Arc::new(Writer::open(ChannelName::new(channel).unwrap(), options).unwrap());
    let set_caps = |size: usize| writer.set_caps(Caps::fixed_size(format!("frames,size={size}"), size));
    set_caps(size).unwrap();
    let (shortages, reported) = std::sync::mpsc::channel();
    let service = ServiceThread::spawn(Arc::clone(&writer), SECOND / 4, move |_, report| {
        if let Some(shortage) = report.unwrap().shortage {
            shortages.send(shortage.to_string()).unwrap();
        }
    });
    let mut all_shortages = Vec::new();
    let mut refused = 0;
    say("opened");
    for value in 1.. {
        match writer.claim(size) {
            Ok(Some(mut slot)) => {
                slot.as_mut().fill(value as u8);
                match writer.publish(&slot, descriptor(size, value), &[]) {
                    Ok(_) | Err(Error::NotPublishable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Ok(None) => writer.record_drop(),
            Err(Error::NoSpace { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        match lines.recv_timeout(Duration::from_millis(5)).as_deref() {
            Ok("stop") => break,
            Ok("report") => {
                all_shortages.extend(reported.try_iter());
                let stats = writer.stats();
                say(format!(
                    "{} {} {refused} {}",
                    stats.published,
                    stats.slots,
                    all_shortages.join("|")
                ));
            }
            Ok(new_size) => {
                size = new_size.parse().unwrap();
                set_caps(size).unwrap();
            }
            Err(_) => {}
        }
    }
    drop(service);
}

/// A writer process in a control group.
struct LimitedWriter(Process);

#[derive(Debug)]
struct Report {
    published: u64,
    slots: u64,
    refused: u64,
    shortages: Vec<String>,
}

impl LimitedWriter {
    #[track_caller]
    fn start(group: &Cgroup, channel: &Channel, size: u64, max_slots: u32) -> Self {
        let mut process = start(
            group,
            "memory_limits/writer",
            &[channel.as_str(), &size.to_string(), &max_slots.to_string()],
        );
        process.expect("opened");
        Self(process)
    }

    #[track_caller]
    fn report(&mut self) -> Report {
        self.0.send("report");
        let line = self.0.receive();
        let mut fields = line.splitn(4, ' ');
        let mut number = || fields.next().unwrap().parse().unwrap();
        let (published, slots, refused) = (number(), number(), number());
        let shortages = fields.next().unwrap().split('|').filter(|text| !text.is_empty());
        Report {
            published,
            slots,
            refused,
            shortages: shortages.map(str::to_owned).collect(),
        }
    }

    /// Ends the writer, and checks that its group never reached its limits.
    #[track_caller]
    fn stop(mut self, group: &Cgroup) {
        self.0.send("stop");
        assert!(self.0.wait().success());
        assert_eq!(group.kills(), 0);
    }
}

#[track_caller]
fn start(group: &Cgroup, role: &str, arguments: &[&str]) -> Process {
    let wrapper = group.wrapper();
    role::start_within(&wrapper.each_ref().map(String::as_str), role, arguments)
}

/// A reader that holds its last frames, as a queue does. Of six readers, each holds other frames.
struct Holder {
    number: u64,
    reader: Reader,
    copy: Vec<u8>,
    held: VecDeque<Frame>,
    frames: u64,
}

impl Holder {
    fn new(channel: &Channel, number: u64) -> Self {
        Self {
            number,
            reader: channel.reader(),
            copy: Vec::new(),
            held: VecDeque::new(),
            frames: 0,
        }
    }

    /// Takes a frame, and releases the oldest one if it holds more than `most`.
    #[track_caller]
    fn take(&mut self, most: usize) {
        let timeout = Some(Duration::from_millis(5));
        let limits = ReadLimits::default().max_held(most as u32 + 2);
        if let Next::Frame(frame) = self.reader.next(&mut self.copy, limits, timeout).unwrap() {
            check_bytes(&frame, &self.copy);
            self.frames += 1;
            if is_in_place(&frame) && frame.seq % 6 == self.number {
                self.held.push_back(frame);
            }
        }
        if self.held.len() > most {
            check_bytes(&self.held.pop_front().unwrap(), &self.copy);
        }
    }
}

/// Lets the readers take frames for a while.
#[track_caller]
fn run(holders: &mut [Holder], most: usize, time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        for holder in &mut *holders {
            holder.take(most);
        }
    }
}

/// Lets the readers take frames until the writer's report is as expected.
#[track_caller]
fn run_until(
    what: &str,
    writer: &mut LimitedWriter,
    holders: &mut [Holder],
    is_expected: impl Fn(&Report) -> bool,
) -> Report {
    let started = Instant::now();
    loop {
        run(holders, GREEDY, SECOND / 10);
        let report = writer.report();
        if is_expected(&report) {
            return report;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: {report:?}");
    }
}

/// Checks that the writer continues, and that all readers receive frames.
#[track_caller]
fn assert_flows(writer: &mut LimitedWriter, holders: &mut [Holder]) -> Report {
    let before = writer.report();
    for holder in &mut *holders {
        holder.frames = 0;
    }
    let report = run_until("frames flow", writer, holders, |report| {
        report.published > before.published + 50
    });
    for holder in holders {
        let started = Instant::now();
        while holder.frames == 0 {
            assert!(started.elapsed() < PATIENCE, "{report:?}");
            holder.take(GREEDY);
        }
    }
    report
}

/// Lets readers come one after another until the writer has reported that it has too few slots for them.
#[track_caller]
fn attach_too_many(writer: &mut LimitedWriter, channel: &Channel) -> (Vec<Holder>, Report) {
    let mut holders: Vec<Holder> = (0..3).map(|number| Holder::new(channel, number)).collect();
    run(&mut holders, GREEDY, SECOND);
    holders.extend((3..6).map(|number| Holder::new(channel, number)));
    let report = run_until("there are too few slots", writer, &mut holders, |report| {
        !report.shortages.is_empty()
    });
    (holders, report)
}

/// Readers that each hold as many frames as they may.
const GREEDY: usize = 32;

#[test]
fn readers_never_get_writer_killed() {
    need_real_machine!("the emulator's own memory counts");
    for max_slots in [0, 64] {
        let group = need_cgroup!(48);
        let channel = Channel::new();
        let mut writer = LimitedWriter::start(&group, &channel, FRAME, max_slots);
        let (mut holders, _) = attach_too_many(&mut writer, &channel);
        run(&mut holders, GREEDY, 3 * SECOND);
        let report = assert_flows(&mut writer, &mut holders);
        println!("{report:?}, {} bytes in use", group.usage());
        // An eighth of the limit is left to other memory.
        assert!(group.usage() < 43 * MIB, "{} {report:?}", group.usage());
        assert!(report.slots > 10, "{report:?}");
        let file = group.limit_file();
        let [shortage] = &report.shortages[..] else {
            panic!("{report:?}");
        };
        for word in [file.to_str().unwrap(), &(48 * MIB).to_string(), "docker run --memory"] {
            assert!(shortage.contains(word), "{shortage}");
        }
        writer.stop(&group);
    }
}

#[test]
fn tightest_group_of_all_counts() {
    // The group of the writer has a looser limit than the group above it.
    let outer = need_cgroup!(32);
    let inner = outer.child();
    inner.set_limit(256 * MIB);
    let channel = Channel::new();
    let mut writer = LimitedWriter::start(&inner, &channel, FRAME, 64);
    let (mut holders, report) = attach_too_many(&mut writer, &channel);
    assert_eq!(report.shortages.len(), 1, "{report:?}");
    assert!(
        report.shortages[0].contains(outer.limit_file().to_str().unwrap()),
        "{report:?}"
    );
    assert_flows(&mut writer, &mut holders);
    writer.stop(&inner);
    assert_eq!(outer.kills(), 0);
}

#[test]
fn writer_stays_below_memory_high() {
    let group = need_cgroup!(256);
    if !group.has_high() {
        skip!("control groups of version 1 have no memory.high");
    }
    group.set_high(32 * MIB);
    let channel = Channel::new();
    let mut writer = LimitedWriter::start(&group, &channel, FRAME, 64);
    let (mut holders, report) = attach_too_many(&mut writer, &channel);
    assert!(
        report.shortages[0].contains(group.high_file().to_str().unwrap()),
        "{report:?}"
    );
    assert_flows(&mut writer, &mut holders);
    writer.stop(&group);
}

#[test]
fn writer_follows_limit_that_changes() {
    let group = need_cgroup!(24);
    let channel = Channel::new();
    let mut writer = LimitedWriter::start(&group, &channel, FRAME, 64);
    let (mut holders, before) = attach_too_many(&mut writer, &channel);
    assert!(before.slots < 22, "{before:?}");
    group.set_limit(64 * MIB);
    let raised = run_until("there are more slots", &mut writer, &mut holders, |report| {
        report.slots > before.slots + 10
    });
    // The limit is now just above what is in use. The writer gets no more slots, although readers want them.
    group.set_limit(group.usage() + 4 * MIB);
    holders.extend((0..6).map(|number| Holder::new(&channel, number)));
    run(&mut holders, GREEDY, 3 * SECOND);
    let lowered = assert_flows(&mut writer, &mut holders);
    assert!(lowered.slots <= raised.slots + 4, "{raised:?} {lowered:?}");
    writer.stop(&group);
}

#[test]
fn new_caps_fit_beside_held_frames_of_old_ones() {
    let group = need_cgroup!(48);
    let channel = Channel::new();
    let mut writer = LimitedWriter::start(&group, &channel, FRAME, 0);
    let mut holders: Vec<Holder> = (0..3).map(|number| Holder::new(&channel, number)).collect();
    for size in [FRAME * 2, FRAME, FRAME * 3 / 2, FRAME / 2] {
        run(&mut holders, GREEDY, SECOND / 2);
        writer.0.send(&size.to_string());
    }
    let report = assert_flows(&mut writer, &mut holders);
    println!("{report:?}, {} bytes in use", group.usage());
    holders.clear();
    // After the readers have gone, frames of any size fit again.
    writer.0.send(&(4 * FRAME).to_string());
    let mut holders = vec![Holder::new(&channel, 0)];
    assert_flows(&mut writer, &mut holders);
    writer.stop(&group);
}

#[test]
fn frame_too_large_for_limit_is_error_that_names_it() {
    let group = need_cgroup!(32);
    let channel = Channel::new();
    let mut process = start(&group, "memory_limits/first frame", &[channel.as_str()]);
    let text = process.receive();
    let file = group.limit_file();
    for word in [
        file.to_str().unwrap(),
        &(32 * MIB).to_string(),
        "3 frames",
        "raise the limit",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(process.wait().success());
    assert_eq!(group.kills(), 0);
}

#[test]
fn writer_in_container_finds_limit_of_its_group() {
    need_real_machine!("its user namespace may not mount control groups");
    let group = need_cgroup!(32);
    let (mount, directory) = group.mount_command();
    let channel = Channel::new();
    let mut process = start_in_container(&group, mount, "memory_limits/first frame", &channel);
    let name = group.limit_file().file_name().unwrap().to_owned();
    let file = format!("{directory}/{} ", name.to_str().unwrap());
    let text = process.receive();
    assert!(text.contains(&file), "{file}: {text}");
    assert!(process.wait().success());
    assert_eq!(group.kills(), 0);
}

#[test]
fn writer_without_visible_groups_has_no_limit() {
    need_real_machine!("its user namespace may not mount control groups");
    let group = need_cgroup!(256);
    let channel = Channel::new();
    let hidden = "mount -t tmpfs tmpfs /sys/fs/cgroup";
    start_in_container(&group, hidden, "memory_limits/no limit", &channel).wait_ok();
}

/// Starts a role in a container whose root group is `group`. `mount` is the command that mounts /sys/fs/cgroup.
#[track_caller]
fn start_in_container(group: &Cgroup, mount: &str, role: &str, channel: &Channel) -> Process {
    let run = format!("{mount} && exec \"$@\"");
    let enter = group.wrapper();
    let container = [
        "unshare",
        "--cgroup",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        &run,
        "sh",
    ];
    let wrapper: Vec<&str> = enter.iter().map(String::as_str).chain(container).collect();
    role::start_within(&wrapper, role, &[channel.as_str()])
}

fn no_limit(channel: &str) {
    let writer = Writer::open(ChannelName::new(channel).unwrap(), slots(4)).unwrap();
    assert_eq!(writer.space().limit, SpaceLimit::SharedMemory);
    writer.set_caps(Caps::fixed_size("small", FRAME as usize)).unwrap();
    assert!(writer.claim(FRAME as usize).unwrap().is_some());
}

fn first_frame(arguments: &[&str]) {
    let writer = Writer::open(ChannelName::new(arguments[0]).unwrap(), WriterOptions::default()).unwrap();
    let size = 10 << 20;
    writer.set_caps(Caps::fixed_size("large", size)).unwrap();
    for _ in 0..3 {
        match writer.claim(size) {
            Err(
                ref error @ Error::NoSpace {
                    ref limit,
                    free,
                    total,
                    wanted,
                    ..
                },
            ) => {
                assert!(matches!(limit, SpaceLimit::ControlGroup(_)), "{error}");
                assert!(free < wanted && total == 32 * MIB, "{error}");
                say(error);
            }
            other => panic!("{other:?}"),
        }
    }
    // A smaller frame fits.
    writer.set_caps(Caps::fixed_size("small", size / 4)).unwrap();
    assert!(matches!(writer.claim(size / 4), Ok(Some(_))));
}

#[test]
fn writers_that_start_together_share_limit() {
    need_real_machine!("the emulator's own memory counts");
    let group = need_cgroup!(64);
    let channels: Vec<Channel> = (0..4).map(|_| Channel::new()).collect();
    let mut writers: Vec<Process> = channels
        .iter()
        .map(|channel| {
            start(
                &group,
                "memory_limits/writer",
                &[channel.as_str(), &(4 * FRAME).to_string(), "64"],
            )
        })
        .collect();
    for writer in &mut writers {
        writer.expect("opened");
    }
    let mut holders: Vec<Holder> = channels
        .iter()
        .chain(&channels)
        .zip(0..6)
        .map(|(channel, number)| Holder::new(channel, number % 6))
        .collect();
    run(&mut holders, GREEDY, 4 * SECOND);
    let mut published = 0;
    for mut writer in writers.into_iter().map(LimitedWriter) {
        let report = writer.report();
        println!("{report:?}");
        // A writer whose first slots do not fit reports that.
        assert!(report.published > 20 || report.refused > 0, "{report:?}");
        published += report.published;
        writer.stop(&group);
    }
    assert!(published > 100);
}

#[test]
fn restarted_writer_fits_beside_frames_of_former_one() {
    let group = need_cgroup!(48);
    let channel = Channel::new();
    let mut holders: Vec<Holder> = (0..2).map(|number| Holder::new(&channel, number)).collect();
    for _ in 0..4 {
        let mut writer = LimitedWriter::start(&group, &channel, FRAME, 64);
        run(&mut holders, GREEDY, SECOND);
        assert_flows(&mut writer, &mut holders);
        writer.0.kill();
        // The one kill is that of the test.
        assert_eq!(group.kills(), 0);
    }
    let mut writer = LimitedWriter::start(&group, &channel, FRAME, 0);
    let report = assert_flows(&mut writer, &mut holders);
    println!("{report:?}");
    writer.stop(&group);
}

#[test]
fn page_cache_counts_as_free() {
    let group = need_cgroup!(48);
    let channel = Channel::new();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.cache", channel.as_str()));
    let _remove = RemoveOnDrop(path.clone());
    let mut process = start(
        &group,
        "memory_limits/page cache",
        &[channel.as_str(), path.to_str().unwrap()],
    );
    process.expect("written");
    if group.page_cache() < 30 * MIB {
        skip!("the files of this project are not on a disk, or another control group keeps them in memory");
    }
    process.send("continue");
    process.expect("published");
    assert!(process.wait().success());
    assert_eq!(group.kills(), 0);
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Fills the control group with the pages of a file on a disk.
fn page_cache(arguments: &[&str]) {
    let mut file = File::create(arguments[1]).unwrap();
    for _ in 0..40 {
        file.write_all(&vec![1; MIB as usize]).unwrap();
        file.sync_all().unwrap();
    }
    say("written");
    listen();
    let size = 8 << 20;
    let writer = Writer::open(ChannelName::new(arguments[0]).unwrap(), WriterOptions::default()).unwrap();
    writer.set_caps(Caps::fixed_size("large", size)).unwrap();
    let mut slot = writer.claim(size).unwrap().expect("a slot");
    slot.as_mut().fill(7);
    writer.publish(&slot, descriptor(size, 7), &[]).unwrap();
    say("published");
}
