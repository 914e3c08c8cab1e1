// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas about packets.

use gst_net::{NetAddressMeta, gio, gio::prelude::*};

use super::*;
use raw::network::{PesMetadata, SctpSend};

fn addresses() -> [gio::InetSocketAddress; 2] {
    let inet = |text: &str| gio::InetAddress::from_string(text).unwrap();
    let local = gst::glib::Object::builder::<gio::InetSocketAddress>()
        .property("address", inet("fe80::1"))
        .property("port", 65535_u32)
        .property("flowinfo", 7_u32)
        .property("scope-id", 3_u32)
        .build();
    [gio::InetSocketAddress::new(&inet("192.0.2.1"), 5004), local]
}

pub(super) fn add_all(buffer: &mut gst::BufferRef) {
    for address in addresses() {
        NetAddressMeta::add(buffer, &address);
    }
    raw::network::add_rtp_source(buffer, Some(u32::MAX), &[1, 2, 3]).unwrap();
    let send = SctpSend {
        protocol: 51,
        is_ordered: true,
        reliability: 3,
        reliability_parameter: 10,
    };
    raw::network::add_sctp_send(buffer, &send).unwrap();
    raw::network::add_sctp_receive(buffer, 53).unwrap();
}

#[test]
fn metas_about_packets_are_sent() {
    let buffer = transferred(add_all);
    let found: Vec<_> = buffer.iter_meta::<NetAddressMeta>().map(|meta| meta.addr()).collect();
    assert_eq!(found.len(), 2);
    for (found, expected) in found.iter().zip(addresses()) {
        let found = found.downcast_ref::<gio::InetSocketAddress>().unwrap();
        assert!(found.address().equal(&expected.address()));
        assert_eq!(found.port(), expected.port());
    }
    // Only addresses of IPv6 have these numbers.
    let local = found[1].downcast_ref::<gio::InetSocketAddress>().unwrap();
    assert_eq!((local.flowinfo(), local.scope_id()), (7, 3));
    let meta = meta_of(&buffer, "GstRTPSourceMeta");
    assert_eq!(raw::network::rtp_source(&meta), Some((Some(u32::MAX), &[1, 2, 3][..])));
    let meta = meta_of(&buffer, "GstSctpSendMeta");
    let send = raw::network::sctp_send(&meta).unwrap();
    assert_eq!(
        (
            send.protocol,
            send.is_ordered,
            send.reliability,
            send.reliability_parameter
        ),
        (51, true, 3, 10)
    );
    let meta = meta_of(&buffer, "GstSctpReceiveMeta");
    assert_eq!(raw::network::sctp_receive(&meta), Some(53));
}

#[test]
fn rtp_source_may_be_unknown() {
    let buffer = transferred(|buffer| raw::network::add_rtp_source(buffer, None, &[9; 15]).unwrap());
    let meta = meta_of(&buffer, "GstRTPSourceMeta");
    assert_eq!(raw::network::rtp_source(&meta), Some((None, &[9; 15][..])));
}

#[test]
fn address_of_socket_file_is_left_out() {
    let buffer = buffer(|buffer| {
        NetAddressMeta::add(buffer, &gio::UnixSocketAddress::new(std::path::Path::new("/tmp/x")));
    });
    assert_eq!(encoded(&buffer), (vec![], 1));
}

/// Before GStreamer 1.24, the meta does not exist, and readers skip its record.
#[test]
fn headers_of_metadata_are_sent_if_gstreamer_has_them() {
    let mut is_added = false;
    let metadata = PesMetadata { service: 7, flags: 8 };
    let buffer = transferred(|buffer| is_added = raw::network::add_pes_metadata(buffer, &metadata).is_some());
    assert_eq!(is_added, gst::version() >= (1, 24, 0, 0));
    if is_added {
        let meta = meta_of(&buffer, "GstMpegtsPESMetadataMeta");
        let found = raw::network::pes_metadata(&meta).unwrap();
        assert_eq!((found.service, found.flags), (7, 8));
    }
    let unknown = u64::from(!is_added);
    assert_eq!(
        skipped(&record(kind::PES_METADATA, &[7, 8])),
        Skipped { refused: 0, unknown }
    );
}

#[test]
fn invalid_metas_about_packets_are_refused() {
    for (kind, content) in [
        (kind::NET_ADDRESS, [0; 15].as_slice()),
        (kind::NET_ADDRESS, &[0; 17]),
        (kind::NET_ADDRESS, &[0xff; 16]),
        (kind::RTP_SOURCE, &[2, 0, 0, 0, 0, 0, 0, 0]),
        (kind::RTP_SOURCE, &[1; 9]),
        (kind::RTP_SOURCE, &[0; 8 + 16 * 4]),
        (kind::SCTP_SEND, &[2; 16]),
        (kind::SCTP_SEND, &[0; 15]),
        (kind::SCTP_RECEIVE, &[0; 3]),
        (kind::PES_METADATA, &[0]),
    ] {
        let (buffer, refused) = decoded(&record(kind, content));
        assert_eq!((count(&buffer), refused), (0, 1), "{kind} {content:?}");
    }
}
