// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas about packets: addresses, RTP sources, SCTP parameters and the headers of MPEG-TS metadata.

use gst::{MetaRef, glib};
use gst_net::{
    NetAddressMeta,
    gio::{self, prelude::*},
};

use super::{
    raw::{
        self,
        network::{PesMetadata, SctpSend},
    },
    record::{Input, Output},
};

/// The maximum number of contributing sources of an RTP packet.
const MAX_CONTRIBUTING_SOURCES: usize = 15;

/// The highest number of a kind of partial reliability of SCTP.
const MAX_RELIABILITY: u32 = 3;

pub(super) fn encode_address(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    // Only addresses of the Internet consist of plain values.
    let address = raw::network::address(meta)?.downcast::<gio::InetSocketAddress>().ok()?;
    let port = address.port().into();
    match address.address().to_bytes()? {
        gio::InetAddressBytes::V4(bytes) => {
            to.numbers(&[port, 0, 0]);
            to.bytes(bytes);
        }
        gio::InetAddressBytes::V6(bytes) => {
            to.numbers(&[port, address.flowinfo(), address.scope_id()]);
            to.bytes(bytes);
        }
    }
    Some(())
}

pub(super) fn decode_address(input: &mut Input) -> Option<()> {
    let [port, flowinfo, scope_id] = input.record.numbers()?;
    let port = u16::try_from(port).ok()?;
    let bytes = input.record.0;
    let address = if let Ok(bytes) = bytes.try_into() {
        gio::InetAddress::from_bytes(gio::InetAddressBytes::V4(bytes))
    } else {
        gio::InetAddress::from_bytes(gio::InetAddressBytes::V6(bytes.try_into().ok()?))
    };
    let address = glib::Object::builder::<gio::InetSocketAddress>()
        .property("address", &address)
        .property("port", u32::from(port))
        .property("flowinfo", flowinfo)
        .property("scope-id", scope_id)
        .build();
    NetAddressMeta::add(input.buffer, &address);
    Some(())
}

pub(super) fn encode_rtp_source(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let (source, contributing) = raw::network::rtp_source(meta)?;
    to.numbers(&[source.is_some().into(), source.unwrap_or(0)]);
    to.numbers(contributing);
    Some(())
}

pub(super) fn decode_rtp_source(input: &mut Input) -> Option<()> {
    let record = &mut input.record;
    let [has_source, source] = record.numbers()?;
    let mut contributing = Vec::new();
    while !record.0.is_empty() {
        contributing.push(record.u32()?);
    }
    if has_source > 1 || contributing.len() > MAX_CONTRIBUTING_SOURCES {
        return None;
    }
    let added = raw::network::add_rtp_source(input.buffer, (has_source != 0).then_some(source), &contributing);
    input.skip_unless(added)
}

pub(super) fn encode_sctp_send(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let send = raw::network::sctp_send(meta)?;
    to.numbers(&[
        send.protocol,
        send.is_ordered.into(),
        send.reliability,
        send.reliability_parameter,
    ]);
    Some(())
}

pub(super) fn decode_sctp_send(input: &mut Input) -> Option<()> {
    let [protocol, is_ordered, reliability, reliability_parameter] = input.record.numbers()?;
    if is_ordered > 1 || reliability > MAX_RELIABILITY {
        return None;
    }
    let send = SctpSend {
        protocol,
        is_ordered: is_ordered != 0,
        reliability,
        reliability_parameter,
    };
    let added = raw::network::add_sctp_send(input.buffer, &send);
    input.skip_unless(added)
}

pub(super) fn encode_sctp_receive(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    to.numbers(&[raw::network::sctp_receive(meta)?]);
    Some(())
}

pub(super) fn decode_sctp_receive(input: &mut Input) -> Option<()> {
    let protocol = input.record.u32()?;
    let added = raw::network::add_sctp_receive(input.buffer, protocol);
    input.skip_unless(added)
}

pub(super) fn encode_pes_metadata(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let PesMetadata { service, flags } = raw::network::pes_metadata(meta)?;
    to.bytes(&[service, flags]);
    Some(())
}

pub(super) fn decode_pes_metadata(input: &mut Input) -> Option<()> {
    let [service, flags] = input.record.array()?;
    let added = raw::network::add_pes_metadata(input.buffer, &PesMetadata { service, flags });
    input.skip_unless(added)
}
