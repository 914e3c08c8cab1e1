// SPDX-License-Identifier: MIT OR Apache-2.0

//! The boundaries of memories.

use super::*;

#[test]
fn memories_are_sent_and_share_bytes_of_frame() {
    for sizes in [
        &[12, 20][..],
        &[2; 16],
        &[0, 32],
        &[32, 0],
        &[0, 5, 0, 27, 0],
        &[1, 30, 1],
    ] {
        let mut bytes = Vec::new();
        assert_eq!(encode(&buffer_of_memories(sizes), None, &mut bytes), 0);
        assert_eq!(
            bytes,
            record_of_memories(&sizes.iter().map(|size| *size as u64).collect::<Vec<_>>())
        );
        let (buffer, refused) = decoded(&bytes);
        assert_eq!((check_memories(&buffer), refused), (sizes.to_vec(), 0));
        let address = |memory: &gst::MemoryRef| memory.map_readable().unwrap().as_ptr() as usize;
        let filled: Vec<_> = buffer.iter_memories().filter(|memory| memory.size() > 0).collect();
        for pair in filled.windows(2) {
            assert_eq!(address(pair[0]) + pair[0].size(), address(pair[1]));
        }
    }
}

#[test]
fn single_memory_has_no_record() {
    for sizes in [&[][..], &[0], &[32]] {
        let mut bytes = Vec::new();
        assert_eq!(encode(&buffer_of_memories(sizes), None, &mut bytes), 0);
        assert_eq!(bytes.capacity(), 0);
    }
}

#[test]
fn memories_of_raw_video_are_sent_if_they_are_copied_as_they_are() {
    let sizes = [640 * 400, 640 * 80];
    let mut bytes = Vec::new();
    encode(&buffer_of_memories(&sizes), Some(&info()), &mut bytes);
    assert_eq!(bytes, record_of_memories(&sizes.map(|size| size as u64)));
    let mut with_meta = buffer_of_memories(&sizes);
    let flags = gst_video::VideoFrameFlags::empty();
    VideoMeta::add(with_meta.get_mut().unwrap(), flags, VideoFormat::Gray8, 640, 480).unwrap();
    for buffer in [with_meta, buffer_of_memories(&[640 * 480, 1])] {
        encode(&buffer, Some(&info()), &mut bytes);
        assert_eq!(bytes, [0_u8; 0]);
    }
}

#[test]
fn invalid_memories_are_refused() {
    let half = 1 << 63;
    for sizes in [
        &[][..],
        &[32],
        &[12, 19],
        &[12, 21],
        &[u64::MAX, 33],
        &[half, half, 32],
        &[33, u64::MAX],
        &[&[2; 15][..], &[1, 1]].concat(),
    ] {
        let (buffer, refused) = decoded(&record_of_memories(sizes));
        assert_eq!((check_memories(&buffer), refused), (vec![32], 1), "{sizes:?}");
    }
    let mut odd = record_of_memories(&[12, 20]);
    odd.extend([0; 4]);
    odd[2] += 4;
    assert_eq!(decoded(&odd).1, 1);
    // The second of two records is refused.
    let (twice, refused) = decoded(&[record_of_memories(&[12, 20]), record_of_memories(&[16, 16])].concat());
    assert_eq!((check_memories(&twice), refused), (vec![12, 20], 1));
    // A record for a buffer without memory is refused.
    let mut empty = buffer(|_| {});
    let record = record_of_memories(&[0, 0]);
    assert_eq!(decode(&record, None, empty.get_mut().unwrap()), 1);
}
