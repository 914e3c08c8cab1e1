// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers with units, for people: bytes and durations; and durations that people write.

use std::time::Duration;

/// A number of bytes, such as `40.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration, such as `12 ms`, `4.2 s`, `3m05s`, `2h14m` or `5d03h`.
pub(crate) fn duration(nanoseconds: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let seconds = nanoseconds / SECOND;
    if nanoseconds < SECOND / 100 {
        format!("{:.1} ms", nanoseconds as f64 / 1e6)
    } else if nanoseconds < SECOND {
        format!("{} ms", nanoseconds / 1_000_000)
    } else if seconds < 60 {
        format!("{:.1} s", nanoseconds as f64 / 1e9)
    } else if seconds < 3600 {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    } else if seconds < 86400 {
        format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60)
    } else {
        format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24)
    }
}

/// The longest duration that is accepted, in seconds: a hundred years. It can be added to every time.
const LONGEST_SECONDS: f64 = 100.0 * 365.0 * 86400.0;

/// Parses a duration, for clap: a number with `ns`, `us`, `ms`, `s`, `m` or `h`. A number alone is in seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 6] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" => Some(1.0),
        unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    let seconds = number
        .parse::<f64>()
        .ok()
        .zip(factor)
        .map(|(number, factor)| number * factor);
    seconds
        .filter(|seconds| *seconds <= LONGEST_SECONDS)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is not a duration, such as 250ms, 3s, 2m or 1h"))
}

/// Nanoseconds of a duration, at most the largest number.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_short() {
        for (nanoseconds, text) in [
            (400_000, "0.4 ms"),
            (12_345_678, "12 ms"),
            (4_210_000_000, "4.2 s"),
            (185_000_000_000, "3m05s"),
            (8_040_000_000_000, "2h14m"),
            (442_800_000_000_000, "5d03h"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("3s", 3000),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7", 7000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1 day", "1.2.3s", "1e400s", "99999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_written_in_short() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (41_943_040, "40.0 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
