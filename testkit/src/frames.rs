// SPDX-License-Identifier: MIT OR Apache-2.0

//! Test frames. The bytes of a frame identify it and show whether it is whole.

/// The eight bytes that the frame `number` repeats.
fn word(number: u32) -> [u8; 8] {
    (u64::from(number) | u64::from(!number) << 32).to_ne_bytes()
}

/// Draws the frame `number` into `bytes`. The frame repeats eight bytes that contain `number`.
pub fn fill(bytes: &mut [u8], number: u32) {
    for (to, from) in bytes.iter_mut().zip(word(number)) {
        *to = from;
    }
    let mut done = 8;
    while done < bytes.len() {
        let more = done.min(bytes.len() - done);
        bytes.copy_within(..more, done);
        done += more;
    }
}

/// The number that [`fill`] drew into `bytes`. `None` if the frame is torn, or if there are fewer than eight bytes.
pub fn check(bytes: &[u8]) -> Option<u32> {
    let first: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let number = u64::from_ne_bytes(first) as u32;
    (first == word(number) && bytes[8..] == bytes[..bytes.len() - 8]).then_some(number)
}

/// Whether all bytes are `value`.
pub fn is_filled(bytes: &[u8], value: u8) -> bool {
    // In a build without optimisation, a comparison of memory is far faster than a loop.
    bytes == vec![value; bytes.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_finds_number_of_whole_frame_only() {
        let mut bytes = vec![0; 1000];
        for number in [0, 1, u32::MAX] {
            fill(&mut bytes, number);
            assert_eq!(check(&bytes), Some(number));
        }
        bytes[999] ^= 1;
        assert_eq!(check(&bytes), None);
        assert_eq!(check(&bytes[..4]), None);
    }
}
