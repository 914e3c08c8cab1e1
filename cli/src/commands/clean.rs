// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm clean`: removes what dead writers have left.

use clap::Args;
use rsshm_channel::{ChannelName, Error, Leftover, Observer, channels};

use crate::{
    failure::{Code, Failure},
    names,
    output::{Format, Output},
    units,
};

/// Removes the files of channels that no living process has.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm clean --all --dry-run        what would be removed
  rsshm clean cam1

It asks the kernel's locks, so it never removes a channel with a living writer or reader, also not one whose processes are
stopped or in another container. A new writer needs no clean-up: it takes over what is left.")]
pub(crate) struct Clean {
    /// Names, URIs or patterns.
    #[arg(value_name = "CHANNEL", required_unless_present = "all")]
    channels: Vec<String>,
    /// All channels of this user.
    #[arg(long, conflicts_with = "channels")]
    all: bool,
    /// Only says what would be removed.
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl Clean {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        if output.format == Format::Csv {
            output.csv(&["channel", "result", "bytes"])?;
        }
        let names = if self.all {
            channels()
                .into_iter()
                .filter_map(|name| ChannelName::new(name).ok())
                .collect()
        } else {
            names::select(&self.channels)?
        };
        let mut outcome = Ok(());
        for name in &names {
            if let Err(failure) = self.clean(name, output) {
                outcome = Err(failure);
            }
        }
        outcome
    }

    /// Removes one channel. With --all, a channel that stays is no failure.
    fn clean(&self, name: &ChannelName, output: &mut Output) -> Result<(), Failure> {
        // A damaged segment has no size to show.
        let bytes = Observer::inspect(name)
            .ok()
            .flatten()
            .and_then(|observer| observer.file().ok());
        let bytes = bytes.map_or(0, |file| file.memory);
        let found = if self.dry_run {
            Leftover::of(name)
        } else {
            Leftover::remove(name)
        };
        let kept = match found {
            Ok(Leftover::Removable) => return self.report(name, bytes, output),
            Ok(Leftover::HasWriter) => "its writer is alive".to_owned(),
            Ok(Leftover::HasReaders(1)) => "its writer is dead, but a reader is alive".to_owned(),
            Ok(Leftover::HasReaders(readers)) => format!("its writer is dead, but {readers} readers are alive"),
            Ok(_) if self.all => return Ok(()),
            Ok(_) => return Err(Failure::no_channel(name.as_str())),
            // Files of other users stay.
            Err(Error::Denied { .. } | Error::Foreign { .. }) if self.all => return Ok(()),
            Err(error) => return Err(Failure::of_channel(name, &error)),
        };
        if self.all {
            return Ok(());
        }
        Err(Failure::new(Code::No, format!("channel {name} stays: {kept}")))
    }

    fn report(&self, name: &ChannelName, bytes: u64, output: &mut Output) -> Result<(), Failure> {
        let result = if self.dry_run { "would remove" } else { "removed" };
        match output.format {
            Format::Table => {
                let size = units::bytes(bytes);
                output.line(format!(
                    "{result} {name} ({size}): its writer is dead, and nobody reads it"
                ))
            }
            Format::Json => {
                output.json(&serde_json::json!({ "channel": name.as_str(), "result": result, "bytes": bytes }))
            }
            Format::Csv => output.csv(&[name.as_str(), result, &bytes.to_string()]),
        }
    }
}
