// SPDX-License-Identifier: MIT OR Apache-2.0

//! The records of events and messages, which are seqlocks, and the conversion of bytes to words and back.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::{
    failpoint::{Failpoint, failpoint},
    layout::{EventDescriptor, EventRecord, MessageRecord},
    seqlock,
};

/// The number of words that an [`EventDescriptor`] has in an event record.
const EVENT_DESCRIPTOR_WORDS: usize = size_of::<EventDescriptor>() / 8;

/// Writes bytes into words and fills the last word with zeros. Bytes beyond the last word are ignored.
///
/// The stores are relaxed, because the release store of the record's seq publishes the words.
pub(crate) fn store_bytes(to: &[AtomicU64], bytes: &[u8]) {
    for (to, from) in to.iter().zip(bytes.chunks(8)) {
        let mut word = [0; 8];
        word[..from.len()].copy_from_slice(from);
        to.store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }
}

/// The first `size` bytes of `from`, or all of its bytes if there are fewer.
///
/// The loads are relaxed, because the caller loads the record's seq with acquire order before the call.
pub(crate) fn load_bytes(from: &[AtomicU64], size: usize) -> Vec<u8> {
    let size = size.min(from.len() * 8);
    let mut bytes = Vec::with_capacity(size.next_multiple_of(8));
    for word in &from[..size.div_ceil(8)] {
        bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes.truncate(size);
    bytes
}

impl EventRecord {
    /// Writes the event `seq`. The caller has checked that its bytes fit.
    pub(crate) fn write(&self, seq: u64, descriptor: EventDescriptor, bytes: &[u8]) {
        let (head, body) = self.words.split_at(EVENT_DESCRIPTOR_WORDS);
        seqlock::write(&self.seq, seq, || {
            store_bytes(head, bytemuck::bytes_of(&descriptor));
            failpoint(Failpoint::RecordHalf);
            store_bytes(body, bytes);
        });
    }

    /// Makes the record empty.
    pub(crate) fn clear(&self) {
        // Relaxed: this store publishes nothing.
        self.seq.store(0, Ordering::Relaxed);
    }

    /// The event in the record: its seq, its descriptor and its bytes; `None` if the record is empty or changes during
    /// the copy.
    pub(crate) fn read(&self) -> Option<(u64, EventDescriptor, Vec<u8>)> {
        let (head, body) = self.words.split_at(EVENT_DESCRIPTOR_WORDS);
        let (seq, (descriptor, bytes)) = seqlock::read(&self.seq, || {
            // Relaxed, as in `load_bytes`.
            let words: [u64; EVENT_DESCRIPTOR_WORDS] = core::array::from_fn(|word| head[word].load(Ordering::Relaxed));
            let descriptor: EventDescriptor = bytemuck::must_cast(words);
            let bytes = load_bytes(body, descriptor.size as usize);
            (descriptor, bytes)
        })?;
        Some((seq, descriptor, bytes))
    }
}

impl MessageRecord {
    /// Writes the message `seq`. The caller has checked that its bytes fit.
    pub(crate) fn write(&self, seq: u64, bytes: &[u8]) {
        let (size, body) = (&self.words[0], &self.words[1..]);
        seqlock::write(&self.seq, seq, || {
            // Relaxed, as in `store_bytes`.
            size.store(bytes.len() as u64, Ordering::Relaxed);
            failpoint(Failpoint::RecordHalf);
            store_bytes(body, bytes);
        });
    }

    /// The bytes of the message `seq`; `None` if the record does not have this message.
    pub(crate) fn read(&self, seq: u64) -> Option<Vec<u8>> {
        let (size, body) = (&self.words[0], &self.words[1..]);
        let (found, bytes) = seqlock::read(&self.seq, || {
            // Relaxed, as in `load_bytes`.
            let size = usize::try_from(size.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            load_bytes(body, size)
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
    fn read_returns_what_was_written() {
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
    fn damaged_size_reads_no_further_than_the_record() {
        let record = record();
        let descriptor = EventDescriptor {
            size: u32::MAX,
            ..EventDescriptor::zeroed()
        };
        record.write(1, descriptor, b"abc");
        assert_eq!(record.read().unwrap().2.len(), MAX_EVENT_SIZE);
    }

    #[test]
    fn concurrent_read_is_consistent_or_empty() {
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
            let began = std::time::Instant::now();
            while last < rounds {
                assert!(began.elapsed().as_secs() < 20, "{last} of {rounds} were read");
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
