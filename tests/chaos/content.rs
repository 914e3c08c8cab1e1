//! What frames, and whatever goes with them, are made of: a head that says which they are, then one word again and again
//! that depends on all of the head. So one comparison of memory checks every byte, and a byte of any other frame is found.

use crate::random::mix;

const MAGIC: u64 = 0x6368_616f_732d_3031;
/// Bytes of the head, which is the least that can be filled.
pub const HEAD: usize = 48;

/// Which frame it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Of the writer: each that starts has the next.
    pub incarnation: u32,
    /// How many writers have stopped in good order before: numbers begin anew then.
    pub epoch: u32,
    /// Of the format, in this writer.
    pub segment_changes: u32,
    /// What it is: [`FRAME`], [`EVENT`], ...
    pub kind: u32,
    /// The writer's own count.
    pub serial: u64,
}

pub const FRAME: u32 = 1;
/// A frame of a writer that publishes each frame that it counts.
pub const COUNTED_FRAME: u32 = 2;
pub const EVENT: u32 = 3;
pub const MESSAGE: u32 = 4;
/// The kind that the channel is told for an event.
pub const OWN_EVENT: u32 = 7777;

impl Tag {
    /// What orders frames.
    pub fn key(&self) -> (u32, u64) {
        (self.incarnation, self.serial)
    }

    fn words(&self, size: usize) -> [u64; 6] {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let mut words = [
            MAGIC,
            pair(self.incarnation, self.epoch),
            pair(self.segment_changes, self.kind),
            self.serial,
            size as u64,
            0,
        ];
        words[5] = words.iter().fold(0, |all, word| mix(all ^ word));
        words
    }

    /// Makes `bytes` what this says. There is room for the head.
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

    pub fn bytes(&self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size.max(HEAD)];
        self.fill(&mut bytes);
        bytes
    }

    /// What `bytes` are, or what is wrong with them.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEAD {
            return Err(format!("{} bytes", bytes.len()));
        }
        let word = |index: usize| u64::from_ne_bytes(bytes[index * 8..][..8].try_into().unwrap());
        let tag = Self {
            incarnation: (word(1) >> 32) as u32,
            epoch: word(1) as u32,
            segment_changes: (word(2) >> 32) as u32,
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

    /// A format of frames of `size` bytes, a multiple of 4096, that says whose it is.
    pub fn caps(&self, size: usize, filler: usize) -> String {
        // So that no row has padding and the sizes agree.
        let width = if size.is_multiple_of(64 * 256) { 256 } else { 64 };
        let filler = "z".repeat(filler);
        format!(
            "video/x-raw,format=GRAY8,width={width},height={},framerate=100/1,chaos=(string){},filler=(string)z{filler}",
            size / width,
            self.format()
        )
    }

    /// What stands in the caps.
    pub fn format(&self) -> String {
        format!("i{}g{}", self.incarnation, self.segment_changes)
    }
}

/// What stands in `caps` of [`Tag::format`].
pub fn format_in(caps: &str) -> Option<&str> {
    let (_, behind) = caps.split_once("chaos=(string)")?;
    behind.split([',', ';']).next()
}

#[test]
fn a_single_wrong_byte_is_found() {
    let tag = Tag {
        incarnation: 3,
        segment_changes: 4,
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
    assert_eq!(format_in(&tag.caps(8192, 9)), Some(tag.format().as_str()));
}
