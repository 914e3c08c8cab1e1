// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands, one in each file.

pub(crate) mod bw;
pub(crate) mod camera;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod completions;
pub(crate) mod delay;
mod describe;
pub(crate) mod doctor;
mod doctor_cameras;
mod doctor_channels;
mod doctor_installed;
mod doctor_program;
mod doctor_system;
pub(crate) mod echo;
pub(crate) mod hz;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod man;
mod measure;
pub(crate) mod metrics;
pub(crate) mod publish;
pub(crate) mod snapshot;
pub(crate) mod top;
mod top_sample;
mod top_screen;
mod top_table;
pub(crate) mod wait;
pub(crate) mod watch;

use rsshm_channel::Directory;

use crate::{
    args::Command,
    failure::{Code, Failure},
    output::Output,
};

/// Runs a command. With a mistake in `RSSHM_DIR`, only the commands run that do not look at channels, and `doctor`, which
/// explains the mistake.
pub(crate) fn run(command: &Command, output: &mut Output) -> Result<(), Failure> {
    if !matches!(command, Command::Doctor(_) | Command::Completions(_) | Command::Man(_)) {
        Directory::current()
            .require()
            .map_err(|fault| Failure::new(Code::Usage, fault.to_string()))?;
    }
    match command {
        Command::List(list) => list.run(output),
        Command::Info(info) => info.run(output),
        Command::Hz(hz) => hz.run(output),
        Command::Bw(bw) => bw.run(output),
        Command::Delay(delay) => delay.run(output),
        Command::Echo(echo) => echo.run(output),
        Command::Wait(wait) => wait.run(output),
        Command::Check(check) => check.run(output),
        Command::Snapshot(snapshot) => snapshot.run(output),
        Command::Cat(cat) => cat.run(output),
        Command::Metrics(metrics) => metrics.run(output),
        Command::Top(top) => top.run(output),
        Command::Watch(watch) => watch.run(output),
        Command::Publish(publish) => publish.run(output),
        Command::Camera(camera) => camera.run(output),
        Command::Doctor(doctor) => doctor.run(output),
        Command::Clean(clean) => clean.run(output),
        Command::Completions(completions) => completions.run(output),
        Command::Man(man) => man.run(output),
    }
}

/// Parses the number of frames of a measurement, for clap.
fn window(text: &str) -> Result<usize, String> {
    const LARGEST: usize = 1_000_000;
    text.parse()
        .ok()
        .filter(|frames| (1..=LARGEST).contains(frames))
        .ok_or_else(|| format!("{text:?} is not a number of frames from 1 to {LARGEST}"))
}
