// SPDX-License-Identifier: MIT OR Apache-2.0

//! The content of frames, events, metadata and messages.
//!
//! The content begins with a head, which identifies the frame. The rest repeats one word, which is a hash of the head.
//! One comparison of memory therefore checks every byte, and detects bytes of another frame.

use crate::random::mix;

const MAGIC: u64 = 0x6368_616f_732d_3031;
/// The size of the head. All content has at least this size.
pub const HEAD: usize = 48;

/// The identity of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The number of the writer. The numbers follow the order in which the writers start.
    pub incarnation: u32,
    /// The number of writers that have closed before this one. Seqs begin again after a close.
    pub epoch: u32,
    /// The number of the caps. Each writer numbers its own caps.
    pub caps: u32,
    /// [`FRAME`], [`COUNTED_FRAME`], [`EVENT`] or [`MESSAGE`].
    pub kind: u32,
    /// The number of frames that this writer has made, including this one.
    pub serial: u64,
}

pub const FRAME: u32 = 1;
/// The kind of a frame whose writer publishes a frame for every serial, without gaps.
pub const COUNTED_FRAME: u32 = 2;
pub const EVENT: u32 = 3;
pub const MESSAGE: u32 = 4;
/// The event kind, in the channel, of the events that a chaos writer publishes.
pub const OWN_EVENT: u32 = 7777;

impl Tag {
    /// The sort key of a frame. Later frames have larger keys.
    pub fn key(&self) -> (u32, u64) {
        (self.incarnation, self.serial)
    }

    fn words(&self, size: usize) -> [u64; 6] {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let mut words = [
            MAGIC,
            pair(self.incarnation, self.epoch),
            pair(self.caps, self.kind),
            self.serial,
            size as u64,
            0,
        ];
        words[5] = words.iter().fold(0, |all, word| mix(all ^ word));
        words
    }

    /// Fills `bytes` with the content of this tag. `bytes` is at least as large as the head.
    pub fn fill(&self, bytes: &mut [u8]) {
        let words = self.words(bytes.len());
        for (to, from) in bytes.chunks_mut(8).zip(words) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        for (to, from) in bytes[HEAD..].iter_mut().zip(words[5].to_ne_bytes()) {
            *to = from;
        }
        let mut done = HEAD + 8;
        while done < bytes.len() {
            let more = (done - HEAD).min(bytes.len() - done) / 8 * 8;
            if more == 0 {
                let rest = bytes.len() - done;
                bytes.copy_within(HEAD..HEAD + rest, done);
                break;
            }
            bytes.copy_within(HEAD..HEAD + more, done);
            done += more;
        }
    }

    /// The content of this tag. It has `size` bytes, but at least the size of the head.
    pub fn bytes(&self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size.max(HEAD)];
        self.fill(&mut bytes);
        bytes
    }

    /// Checks every byte. Returns the tag, or a description of the wrong bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEAD {
            return Err(format!("{} bytes", bytes.len()));
        }
        let word = |index: usize| u64::from_ne_bytes(bytes[index * 8..][..8].try_into().unwrap());
        let tag = Self {
            incarnation: (word(1) >> 32) as u32,
            epoch: word(1) as u32,
            caps: (word(2) >> 32) as u32,
            kind: word(2) as u32,
            serial: word(3),
        };
        let wanted = tag.words(bytes.len());
        if let Some(index) = (0..6).find(|index| word(*index) != wanted[*index]) {
            return Err(format!(
                "word {index} of the head is {:#x}, not {:#x}; {tag:?}, {} bytes",
                word(index),
                wanted[index],
                bytes.len()
            ));
        }
        let body = &bytes[HEAD..];
        let first = body.len().min(8);
        let repeats = body[..first] == wanted[5].to_ne_bytes()[..first] && body[first..] == body[..body.len() - first];
        if repeats {
            return Ok(tag);
        }
        let word = wanted[5].to_ne_bytes();
        let is_wrong = |(at, byte): (usize, &u8)| (*byte != word[at % 8]).then_some(at);
        let wrong: Vec<usize> = body.iter().enumerate().filter_map(is_wrong).collect();
        let (first, last) = (wrong[0], wrong[wrong.len() - 1]);
        Err(format!(
            "{} of {} bytes are wrong, from {first} to {last}: {:x?}, not {word:x?}; {tag:?}",
            wrong.len(),
            bytes.len(),
            &body[first..(first + 16).min(body.len())],
        ))
    }

    /// The caps for frames of `size` bytes, a multiple of 4096. The caps contain [`caps_id`](Self::caps_id) and
    /// `filler` additional bytes.
    pub fn caps_string(&self, size: usize, filler: usize) -> String {
        // Rows of this width need no padding, so the frame size that GStreamer computes from the caps is `size`.
        let width = if size.is_multiple_of(64 * 256) { 256 } else { 64 };
        let filler = "z".repeat(filler);
        format!(
            "video/x-raw,format=GRAY8,width={width},height={},framerate=100/1,chaos=(string){},filler=(string)z{filler}",
            size / width,
            self.caps_id()
        )
    }

    /// The identity of the caps.
    pub fn caps_id(&self) -> String {
        format!("i{}g{}", self.incarnation, self.caps)
    }
}

/// The identity in `caps` (see [`Tag::caps_id`]).
pub fn caps_id_in(caps: &str) -> Option<&str> {
    let (_, rest) = caps.split_once("chaos=(string)")?;
    rest.split([',', ';']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_wrong_byte_is_found() {
        let tag = Tag {
            incarnation: 3,
            caps: 4,
            serial: 5,
            kind: FRAME,
            ..Tag::default()
        };
        for size in [HEAD, HEAD + 1, HEAD + 8, HEAD + 13, 4096, 4096 * 3] {
            let mut bytes = tag.bytes(size);
            assert_eq!(bytes.len(), size);
            assert_eq!(Tag::read(&bytes), Ok(tag), "{size}");
            for at in [0, 9, 17, 25, HEAD - 1, HEAD, size / 2, size - 1] {
                if at < size {
                    bytes[at] ^= 1;
                    assert!(Tag::read(&bytes).is_err(), "byte {at} of {size}");
                    bytes[at] ^= 1;
                }
            }
            assert!(Tag::read(&bytes[..size - 1]).is_err());
        }
        assert_eq!(caps_id_in(&tag.caps_string(8192, 9)), Some(tag.caps_id().as_str()));
    }
}
