// SPDX-License-Identifier: MIT OR Apache-2.0

//! The channels that the user names: names, URIs of the form `rsshm://NAME`, and patterns such as `cam*`.

use rsshm_channel::{ChannelName, possible_channels};

use crate::failure::{Code, Failure};

const SCHEME: &str = "rsshm://";

/// Parses the name or the URI of a single channel, for clap.
pub(crate) fn parse(text: &str) -> Result<ChannelName, String> {
    let name = if text.starts_with(SCHEME) {
        ChannelName::text_of_uri(text).ok_or_else(|| format!("{text:?} is not of the form rsshm://NAME"))?
    } else {
        text.to_owned()
    };
    ChannelName::new(name).map_err(|error| error.to_string())
}

/// The channels that `patterns` name: each name as it is, whether the channel exists or not, and for each pattern the
/// channels that match it.
///
/// # Errors
/// A pattern that no channel matches, or a name that cannot be one.
pub(crate) fn select(patterns: &[String]) -> Result<Vec<ChannelName>, Failure> {
    let existing = possible_channels();
    let mut selected: Vec<ChannelName> = Vec::new();
    for pattern in patterns {
        let is_pattern = pattern.contains(['*', '?', '[']) && !existing.contains(pattern);
        if !is_pattern {
            selected.push(parse(pattern).map_err(|text| Failure::new(Code::Usage, text))?);
            continue;
        }
        let plain = pattern.strip_prefix(SCHEME).unwrap_or(pattern);
        let matching: Vec<_> = existing.iter().filter(|name| matches(plain, name)).collect();
        if matching.is_empty() {
            let text = format!("no channel matches {pattern}; `rsshm list` shows all");
            return Err(Failure::new(Code::No, text));
        }
        selected.extend(
            matching
                .into_iter()
                .filter_map(|name| ChannelName::new(name.as_str()).ok()),
        );
    }
    let mut seen = std::collections::HashSet::new();
    selected.retain(|name| seen.insert(name.clone()));
    Ok(selected)
}

/// The channels that `patterns` name, as [`select`] does; all channels if there are no patterns.
pub(crate) fn select_or_all(patterns: &[String]) -> Result<Vec<ChannelName>, Failure> {
    if !patterns.is_empty() {
        return select(patterns);
    }
    let names = possible_channels().into_iter();
    Ok(names.filter_map(|name| ChannelName::new(name).ok()).collect())
}

/// The name as a word of a shell.
pub(crate) fn shell_word(name: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.:+@%".contains(character);
    if name.chars().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

/// Whether `name` matches a shell pattern: `*` is any text, `?` any character, `[a-c]` one of these, `[!a]` none of
/// these.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // `fallback` is where to continue if the rest does not match: behind the last `*`, one character later in the name.
    let (mut at, mut position, mut fallback) = (0, 0, None);
    while position < name.len() {
        let step = match pattern.get(at) {
            Some('*') => {
                fallback = Some((at, position));
                at += 1;
                continue;
            }
            Some('?') => Some(at + 1),
            Some('[') => match_class(&pattern, at, name[position]),
            Some(character) => (*character == name[position]).then_some(at + 1),
            None => None,
        };
        match (step, fallback) {
            (Some(next), _) => (at, position) = (next, position + 1),
            (None, Some((star, from))) => {
                (at, position) = (star + 1, from + 1);
                fallback = Some((star, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[at..].iter().all(|character| *character == '*')
}

/// The position behind the class that begins at `start`, if the class has `character`. A `[` without `]` stands for
/// itself.
fn match_class(pattern: &[char], start: usize, character: char) -> Option<usize> {
    let is_negated = matches!(pattern.get(start + 1), Some('!' | '^'));
    let first = start + 1 + usize::from(is_negated);
    // A `]` directly behind the beginning is a member of the class.
    let members = pattern.get(first + 1..).unwrap_or_default();
    let Some(length) = members.iter().position(|character| *character == ']') else {
        return (character == '[').then_some(start + 1);
    };
    let end = first + 1 + length;
    let (mut at, mut is_in) = (first, false);
    while at < end {
        if pattern.get(at + 1) == Some(&'-') && at + 2 < end {
            is_in |= (pattern[at]..=pattern[at + 2]).contains(&character);
            at += 3;
        } else {
            is_in |= pattern[at] == character;
            at += 1;
        }
    }
    (is_in != is_negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_names_are_names() {
        for text in ["cam0", "rsshm://cam0", "rsshm://cam0/", "rsshm://c%61m0"] {
            assert_eq!(
                parse(text).map(|name| name.to_string()),
                Ok("cam0".to_owned()),
                "{text}"
            );
        }
        for text in ["", "a/b", "rsshm://", "rsshm://%zz", "http://cam0", "sem.cam0"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_of_a_shell_are_quoted_where_they_need_it() {
        for (name, word) in [
            ("cam-0.left", "cam-0.left"),
            ("a b", "'a b'"),
            ("it's;x", "'it'\\''s;x'"),
        ] {
            assert_eq!(shell_word(name), word);
        }
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name) in [
            ("*", "cam0"),
            ("cam*", "cam"),
            ("cam?", "cam0"),
            ("*am*0", "cam10"),
            ("cam[0-3]", "cam2"),
            ("cam[!0-3]", "cam7"),
            ("cam[ab]x", "cambx"),
            ("a*b*c", "aXbYbZc"),
            ("[", "["),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("cam?", "cam"),
            ("cam[0-3]", "cam7"),
            ("cam[!0-3]", "cam2"),
            ("cam*x", "cam0"),
            ("am*", "cam0"),
            ("a*b*c", "aXbYbZ"),
            ("", "cam0"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
