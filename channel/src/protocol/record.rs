//! Numbered records in shared memory, and bytes as words of it.
//!
//! One process writes a record, again and again; others copy it without a lock, and look at its number before and after:
//! it is the same when what they copied is whole.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::protocol::{
    failpoint::{Failpoint, failpoint},
    layout::{EventDescriptor, EventRecord, MessageRecord},
};

/// Words of an event's record that its descriptor takes.
const EVENT_HEAD: usize = size_of::<EventDescriptor>() / 8;

/// Writes bytes into words, the last of which is filled up with zeros. What there is no room for is left out.
///
/// Relaxed stores: what makes them visible is the release store of the number that belongs to them.
pub(crate) fn store_bytes(to: &[AtomicU64], bytes: &[u8]) {
    for (to, from) in to.iter().zip(bytes.chunks(8)) {
        let mut word = [0; 8];
        word[..from.len()].copy_from_slice(from);
        to.store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }
}

/// The first `size` bytes of words, at most as many as there are.
///
/// Relaxed loads: the number that belongs to them is loaded with acquire order before.
pub(crate) fn load_bytes(from: &[AtomicU64], size: usize) -> Vec<u8> {
    let size = size.min(from.len() * 8);
    let mut bytes = Vec::with_capacity(size.next_multiple_of(8));
    for word in &from[..size.div_ceil(8)] {
        bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Writes a record. The caller is the only one who writes it.
fn write(seq: &AtomicU64, value: u64, fill: impl FnOnce()) {
    seq.store(0, Ordering::Relaxed);
    // Pairs with the acquire fence in `read`: who has copied any of the words below sees the 0 above, or what came later.
    fence(Ordering::Release);
    fill();
    // Release: pairs with the acquire load in `read`; who finds the number finds the words.
    seq.store(value, Ordering::Release);
}

/// Copies a record; `None` when it has no number, or got another meanwhile.
fn read<T>(seq: &AtomicU64, copy: impl FnOnce() -> T) -> Option<(u64, T)> {
    let value = seq.load(Ordering::Acquire);
    if value == 0 {
        return None;
    }
    let copied = copy();
    fence(Ordering::Acquire);
    (seq.load(Ordering::Relaxed) == value).then_some((value, copied))
}

impl EventRecord {
    /// Writes the event `seq`. There is room for all of its bytes.
    pub(crate) fn write(&self, seq: u64, descriptor: EventDescriptor, bytes: &[u8]) {
        let (head, room) = self.words.split_at(EVENT_HEAD);
        write(&self.seq, seq, || {
            store_bytes(head, bytemuck::bytes_of(&descriptor));
            failpoint(Failpoint::RecordHalf);
            store_bytes(room, bytes);
        });
    }

    /// Makes it a place without an event.
    pub(crate) fn clear(&self) {
        // Relaxed: nothing goes with it.
        self.seq.store(0, Ordering::Relaxed);
    }

    /// The event that is there: its number, what it is, and its bytes.
    pub(crate) fn read(&self) -> Option<(u64, EventDescriptor, Vec<u8>)> {
        let (head, room) = self.words.split_at(EVENT_HEAD);
        let (seq, (descriptor, bytes)) = read(&self.seq, || {
            let words: [u64; EVENT_HEAD] = core::array::from_fn(|word| head[word].load(Ordering::Relaxed));
            let descriptor: EventDescriptor = bytemuck::must_cast(words);
            let bytes = load_bytes(room, descriptor.size as usize);
            (descriptor, bytes)
        })?;
        Some((seq, descriptor, bytes))
    }
}

impl MessageRecord {
    /// Writes the letter `seq`. There is room for all of its bytes.
    pub(crate) fn write(&self, seq: u64, bytes: &[u8]) {
        let (size, room) = (&self.words[0], &self.words[1..]);
        write(&self.seq, seq, || {
            size.store(bytes.len() as u64, Ordering::Relaxed);
            failpoint(Failpoint::RecordHalf);
            store_bytes(room, bytes);
        });
    }

    /// The bytes of the letter `seq`, if that is there.
    pub(crate) fn read(&self, seq: u64) -> Option<Vec<u8>> {
        let (size, room) = (&self.words[0], &self.words[1..]);
        let (found, bytes) = read(&self.seq, || {
            let size = usize::try_from(size.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            load_bytes(room, size)
        })?;
        (found == seq).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::protocol::layout::{EVENT_STRIDE, MAX_EVENT_SIZE};

    fn record() -> EventRecord {
        EventRecord {
            seq: AtomicU64::new(0),
            words: [const { AtomicU64::new(0) }; EVENT_STRIDE / 8 - 1],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record();
        assert_eq!(record.read(), None);
        for bytes in [&b""[..], b"1234567", b"12345678", &[7; MAX_EVENT_SIZE]] {
            let descriptor = EventDescriptor {
                kind: 3,
                size: bytes.len() as u32,
                ..EventDescriptor::zeroed()
            };
            record.write(9, descriptor, bytes);
            assert_eq!(record.read(), Some((9, descriptor, bytes.to_vec())));
        }
        record.clear();
        assert_eq!(record.read(), None);
    }

    #[test]
    fn a_damaged_size_reads_no_further_than_the_record() {
        let record = record();
        let descriptor = EventDescriptor {
            size: u32::MAX,
            ..EventDescriptor::zeroed()
        };
        record.write(1, descriptor, b"abc");
        assert_eq!(record.read().unwrap().2.len(), MAX_EVENT_SIZE);
    }

    #[test]
    fn a_record_is_read_whole_or_not_at_all() {
        let record = record();
        let rounds = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seq in 1..=rounds {
                    let descriptor = EventDescriptor {
                        after: seq,
                        size: 64,
                        ..EventDescriptor::zeroed()
                    };
                    record.write(seq, descriptor, &[seq as u8; 64]);
                }
            });
            let mut last = 0;
            while last < rounds {
                let Some((seq, descriptor, bytes)) = record.read() else {
                    continue;
                };
                assert_eq!(descriptor.after, seq);
                assert_eq!(bytes, [seq as u8; 64]);
                assert!(seq >= last);
                last = seq;
            }
        });
    }
}
