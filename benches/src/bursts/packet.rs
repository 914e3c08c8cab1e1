// SPDX-License-Identifier: MIT OR Apache-2.0

//! The content of a small buffer: its seq, and in all further bytes words that are derived from the seq.

use crate::frame::word_of;

const WORD_SIZE: usize = 8;

/// The seq of the first buffer of the first burst. Buffers before the bursts have lower seqs.
pub const FIRST_SEQ: u64 = 1 << 32;

/// The word that the buffer `seq` has at `offset`.
fn expected(seq: u64, offset: usize) -> [u8; WORD_SIZE] {
    let word = if offset == 0 { seq } else { word_of(seq, offset) };
    word.to_ne_bytes()
}

/// Draws the buffer `seq`.
pub fn draw(bytes: &mut [u8], seq: u64) {
    for (index, word) in bytes.chunks_mut(WORD_SIZE).enumerate() {
        let length = word.len();
        word.copy_from_slice(&expected(seq, index * WORD_SIZE)[..length]);
    }
}

/// Reads the seq of a buffer, and checks that all its bytes belong to this seq.
pub fn read(bytes: &[u8], size: usize) -> Result<u64, String> {
    if bytes.len() != size {
        return Err(format!("a buffer has {} bytes instead of {size}", bytes.len()));
    }
    let first = bytes.first_chunk().ok_or("a buffer has no seq")?;
    let seq = u64::from_ne_bytes(*first);
    let wrong = bytes
        .chunks(WORD_SIZE)
        .enumerate()
        .find(|(index, word)| expected(seq, index * WORD_SIZE)[..word.len()] != **word);
    match wrong {
        Some((index, _)) => Err(format!(
            "buffer {seq} is torn or damaged: wrong at byte {}",
            index * WORD_SIZE
        )),
        None => Ok(seq),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damaged_byte_is_noticed() {
        let mut bytes = [0; 188];
        draw(&mut bytes, FIRST_SEQ + 7);
        assert_eq!(read(&bytes, 188), Ok(FIRST_SEQ + 7));
        for index in 0..bytes.len() {
            bytes[index] ^= 1;
            assert!(read(&bytes, 188).is_err(), "{index}");
            bytes[index] ^= 1;
        }
        assert!(read(&bytes[1..], 188).is_err() && read(&[], 0).is_err());
    }
}
