//! What is in a frame: a mark at its beginning, and a word in each page that follows from the frame's number.

/// In place of a number that is not known yet.
pub const NOT_YET: u64 = u64::MAX;

const MAGIC: u64 = 0x7273_7368_6d2d_6231;
const WORD: usize = 8;
const MARK: usize = 5 * WORD;
/// One word a page: enough to see a frame that is made of two, and cheap.
const STEP: usize = 4096;

/// The frame's number, when it was sent, and which numbers are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub number: u64,
    pub sent_ns: u64,
    pub first: u64,
    /// The first one that is not counted any more.
    pub end: u64,
}

/// Where a frame of so many bytes has a word of the pattern.
fn places(bytes: usize) -> impl Iterator<Item = usize> {
    let last = bytes.saturating_sub(WORD);
    (STEP..last)
        .step_by(STEP)
        .chain(std::iter::once(last))
        .filter(|place| *place >= MARK)
}

fn word(number: u64, place: usize) -> u64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (place as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
}

fn put(bytes: &mut [u8], place: usize, word: u64) {
    if let Some(target) = bytes.get_mut(place..place + WORD) {
        target.copy_from_slice(&word.to_ne_bytes());
    }
}

fn get(bytes: &[u8], place: usize) -> Option<u64> {
    let word = bytes.get(place..place + WORD)?;
    word.try_into().ok().map(u64::from_ne_bytes)
}

/// Draws the picture; the mark comes last, with its time.
pub fn draw(bytes: &mut [u8], number: u64) {
    draw_words(bytes.len(), number, |place, word| put(bytes, place, word));
}

/// The same by a word's place and value.
pub fn draw_words(bytes: usize, number: u64, mut put: impl FnMut(usize, u64)) {
    for place in places(bytes) {
        put(place, word(number, place));
    }
}

/// Where a picture of so many bytes is not the one with this number.
pub fn wrong_word(bytes: usize, number: u64, get: impl Fn(usize) -> Option<u64>) -> Option<usize> {
    places(bytes).find(|place| get(*place) != Some(word(number, *place)))
}

/// Spoils what [`draw`] has drawn.
pub fn corrupt(bytes: &mut [u8]) {
    if let Some(byte) = places(bytes.len()).nth(1).and_then(|place| bytes.get_mut(place)) {
        *byte ^= 1;
    }
}

pub fn stamp(bytes: &mut [u8], mark: Mark) {
    let words = [MAGIC, mark.number, mark.sent_ns, mark.first, mark.end];
    for (index, word) in words.into_iter().enumerate() {
        put(bytes, index * WORD, word);
    }
}

/// The frame's mark, if all of the frame belongs to it.
pub fn check(bytes: &[u8], size: usize) -> Result<Mark, String> {
    if bytes.len() != size {
        return Err(format!("a frame has {} bytes and not {size}", bytes.len()));
    }
    let at = |index: usize| get(bytes, index * WORD).unwrap_or_default();
    let mark = Mark {
        number: at(1),
        sent_ns: at(2),
        first: at(3),
        end: at(4),
    };
    if at(0) != MAGIC {
        return Err("a frame has no mark".into());
    }
    match wrong_word(bytes.len(), mark.number, |place| get(bytes, place)) {
        Some(place) => Err(format!(
            "frame {} is torn or damaged: wrong at byte {place}",
            mark.number
        )),
        None => Ok(mark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 40_000;

    fn frame(number: u64) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        draw(&mut bytes, number);
        let mark = Mark {
            number,
            sent_ns: 17,
            first: NOT_YET,
            end: NOT_YET,
        };
        stamp(&mut bytes, mark);
        bytes
    }

    #[test]
    fn a_whole_frame_tells_its_mark() {
        let mark = check(&frame(5), SIZE).unwrap();
        assert_eq!((mark.number, mark.sent_ns, mark.first), (5, 17, NOT_YET));
    }

    #[test]
    fn a_frame_made_of_two_is_noticed() {
        for cut in [4096, 20_000, SIZE - 4] {
            let mut torn = frame(5);
            torn[cut..].copy_from_slice(&frame(4)[cut..]);
            let error = check(&torn, SIZE).unwrap_err();
            assert!(error.contains("frame 5 is torn"), "{error}");
        }
    }

    #[test]
    fn a_frame_of_another_size_is_refused() {
        assert!(check(&frame(5)[..SIZE - 1], SIZE).is_err());
    }
}
