//! The sink's own thread: it keeps the count of readers, the signals and the channel's files right when no frames flow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::prelude::*;
use rsshm_channel::{Error, ServiceReport, Writer};

use super::{RsShmSink, imp::CAT};
use crate::{codec::Names, events};

/// The longest time between two looks at who is alive.
const INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Monitor {
    writer: Arc<Writer>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Monitor {
    pub(super) fn start(sink: &RsShmSink, writer: &Arc<Writer>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (writer, stop, sink) = (Arc::clone(writer), Arc::clone(&stop), sink.downgrade());
            std::thread::Builder::new()
                .name("rsshmsink-monitor".to_owned())
                .spawn(move || run(&writer, &stop, &sink))?
        };
        Ok(Self {
            writer: Arc::clone(writer),
            stop,
            thread,
        })
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(self) {
        // Release: pairs with the acquire load in `run`.
        self.stop.store(true, Ordering::Release);
        self.writer.stop_service();
        // A signal handler that stops the pipeline from this very thread must not wait for itself.
        if self.thread.thread().id() != std::thread::current().id() {
            let _ = self.thread.join();
        }
    }
}

fn run(writer: &Writer, stop: &AtomicBool, sink: &glib::WeakRef<RsShmSink>) {
    let mut told = None;
    let mut names = Names::default();
    while !stop.load(Ordering::Acquire) {
        let clients = writer.service();
        let Some(sink) = sink.upgrade() else {
            return;
        };
        match clients {
            Ok(clients) => {
                told = None;
                tell(&sink, &clients);
                pass_on(&sink, &clients, &mut names);
            }
            // Said once, as it is tried again and again.
            Err(error) if told.as_ref() == Some(&error) => {}
            Err(error) => {
                gst::error!(CAT, obj = sink, "{error}");
                sink.post_error_message(crate::error::message(&error, gst::ResourceError::OpenWrite));
                // The names are somebody else's: nothing more to look after. Frames go on to who is attached.
                if matches!(error, Error::Busy { .. }) {
                    return;
                }
                told = Some(error);
            }
        }
        drop(sink);
        writer.wait_for_service(INTERVAL);
    }
}

fn tell(sink: &RsShmSink, clients: &ServiceReport) {
    let warn = |what: &str| {
        let channel = sink.imp().channel();
        gst::element_warning!(sink, gst::ResourceError::Failed, ("channel {channel}: {what}"));
    };
    for entry in &clients.evicted {
        warn(&format!(
            "the reader in entry {entry} held more frames than it was granted and no longer counts"
        ));
    }
    if clients.names_restored {
        warn("its files in /dev/shm were removed by somebody and have been made again");
    }
    if clients.repaired {
        warn("its segment was written into by another program; a new one was made");
    }
    for fault in &clients.semaphore_faults {
        warn(&fault.to_string());
    }
    if sink.imp().set_num_clients(clients.reader_count) {
        sink.notify("num-clients");
    }
    for entry in &clients.disconnected {
        sink.emit_by_name::<()>("client-disconnected", &[entry]);
    }
    for entry in &clients.connected {
        sink.emit_by_name::<()>("client-connected", &[entry]);
    }
}

/// Sends upstream what readers ask for. Nothing else of theirs gets there: no reader may disturb the writer.
fn pass_on(sink: &RsShmSink, clients: &ServiceReport, names: &mut Names) {
    let pad = sink.sink_pad();
    if clients.keyframe_wanted {
        gst::debug!(CAT, obj = sink, "a reader waits for a key unit");
        let event = gst_video::UpstreamForceKeyUnitEvent::builder()
            .all_headers(true)
            .build();
        pad.push_event(event);
    }
    for message in &clients.messages {
        if let Some(event) = events::navigation_event(message, names) {
            pad.push_event(event);
        }
    }
}
