// SPDX-License-Identifier: MIT OR Apache-2.0

//! The content of a frame: a mark at its beginning, and in each page a word that is derived from the frame's seq.

use crate::case::Reading;

/// The value that stands for a seq that is not known yet.
pub const SEQ_UNKNOWN: u64 = u64::MAX;

const MAGIC: u64 = 0x7273_7368_6d2d_6231;
const WORD_SIZE: usize = 8;
const MARK_SIZE: usize = 5 * WORD_SIZE;
/// The distance between two words: one page. One word in each page costs little, and reveals a frame that is a mixture
/// of two frames.
const WORD_STRIDE: usize = 4096;

/// The frame's seq, the time when the frame was sent, and the range of frames that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub seq: u64,
    pub sent_ns: u64,
    /// Seq of the first frame that counts.
    pub first: u64,
    /// Seq of the first frame after those that count.
    pub end: u64,
}

/// Offsets of the check words in a frame of `size` bytes.
fn word_offsets(size: usize) -> impl Iterator<Item = usize> {
    let last = size.saturating_sub(WORD_SIZE);
    (WORD_STRIDE..last)
        .step_by(WORD_STRIDE)
        .chain(std::iter::once(last))
        .filter(|offset| *offset >= MARK_SIZE)
}

/// The word that the frame `seq` has at `offset`.
pub fn word_of(seq: u64, offset: usize) -> u64 {
    (seq + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (offset as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
}

fn store_word(bytes: &mut [u8], offset: usize, word: u64) {
    if let Some(target) = bytes.get_mut(offset..offset + WORD_SIZE) {
        target.copy_from_slice(&word.to_ne_bytes());
    }
}

fn load_word(bytes: &[u8], offset: usize) -> Option<u64> {
    let word = bytes.get(offset..offset + WORD_SIZE)?;
    word.try_into().ok().map(u64::from_ne_bytes)
}

/// Draws the words of a frame. [`write_mark`] writes the mark afterwards, because the mark contains the sending time.
pub fn draw(bytes: &mut [u8], seq: u64) {
    draw_words(bytes.len(), seq, |offset, word| store_word(bytes, offset, word));
}

/// Draws the words with `store`, which gets the offset and the value of each word.
pub fn draw_words(size: usize, seq: u64, mut store: impl FnMut(usize, u64)) {
    for offset in word_offsets(size) {
        store(offset, word_of(seq, offset));
    }
}

/// Offset of the first word that does not belong to the frame `seq`. `load` reads the word at an offset.
pub fn first_wrong_word(size: usize, seq: u64, load: impl Fn(usize) -> Option<u64>) -> Option<usize> {
    word_offsets(size).find(|offset| load(*offset) != Some(word_of(seq, *offset)))
}

/// Damages a frame that [`draw`] has drawn.
pub fn corrupt(bytes: &mut [u8]) {
    let offset = word_offsets(bytes.len()).nth(1);
    if let Some(byte) = offset.and_then(|offset| bytes.get_mut(offset)) {
        *byte ^= 1;
    }
}

/// Writes the mark of a frame.
pub fn write_mark(bytes: &mut [u8], mark: Mark) {
    let words = [MAGIC, mark.seq, mark.sent_ns, mark.first, mark.end];
    for (index, word) in words.into_iter().enumerate() {
        store_word(bytes, index * WORD_SIZE, word);
    }
}

/// Reads every byte of a frame, as an encoder does. The result depends on all bytes, so the compiler leaves none out.
pub fn read_all(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<WORD_SIZE>();
    let words = words.iter().map(|word| u64::from_ne_bytes(*word));
    words
        .chain(rest.iter().map(|byte| u64::from(*byte)))
        .fold(0, u64::wrapping_add)
}

/// Reads as much of a frame as the case wants, and returns its mark. Unless only a few bytes are read, all words of the
/// frame must belong to the mark's seq.
pub fn read(bytes: &[u8], size: usize, reading: Reading) -> Result<Mark, String> {
    if bytes.len() != size {
        return Err(format!("a frame has {} bytes instead of {size}", bytes.len()));
    }
    let word = |index: usize| load_word(bytes, index * WORD_SIZE).unwrap_or_default();
    let mark = Mark {
        seq: word(1),
        sent_ns: word(2),
        first: word(3),
        end: word(4),
    };
    if word(0) != MAGIC {
        return Err("a frame has no mark".into());
    }
    match reading {
        Reading::Few => return Ok(mark),
        Reading::Words => {}
        Reading::All => {
            std::hint::black_box(read_all(bytes));
        }
    }
    match first_wrong_word(bytes.len(), mark.seq, |offset| load_word(bytes, offset)) {
        Some(offset) => Err(format!("frame {} is torn or damaged: wrong at byte {offset}", mark.seq)),
        None => Ok(mark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 40_000;

    fn frame(seq: u64) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        draw(&mut bytes, seq);
        let mark = Mark {
            seq,
            sent_ns: 17,
            first: SEQ_UNKNOWN,
            end: SEQ_UNKNOWN,
        };
        write_mark(&mut bytes, mark);
        bytes
    }

    #[test]
    fn intact_frame_has_its_mark() {
        let mark = read(&frame(5), SIZE, Reading::Words).unwrap();
        assert_eq!((mark.seq, mark.sent_ns, mark.first), (5, 17, SEQ_UNKNOWN));
    }

    #[test]
    fn torn_frame_is_noticed() {
        for cut in [4096, 20_000, SIZE - 4] {
            let mut torn = frame(5);
            torn[cut..].copy_from_slice(&frame(4)[cut..]);
            for reading in [Reading::Words, Reading::All] {
                let error = read(&torn, SIZE, reading).unwrap_err();
                assert!(error.contains("frame 5 is torn"), "{error}");
            }
        }
    }

    #[test]
    fn frame_of_another_size_is_refused() {
        assert!(read(&frame(5)[..SIZE - 1], SIZE, Reading::Few).is_err());
    }

    #[test]
    fn every_byte_changes_what_is_read() {
        let mut bytes = [0; 27];
        for at in 0..bytes.len() {
            let before = read_all(&bytes);
            bytes[at] = 1;
            assert_ne!(read_all(&bytes), before, "{at}");
        }
    }
}
