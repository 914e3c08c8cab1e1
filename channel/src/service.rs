// SPDX-License-Identifier: MIT OR Apache-2.0

//! The service thread: a writer's regular housekeeping, on a thread of its own.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Error, ServiceReport, Writer};

/// The name of the thread; Linux shows only its first 15 characters.
const THREAD_NAME: &str = "rsshm-monitor";

/// The longest time between two passes while the writer is idle. Such a writer has no readers that could be killed, and
/// a reader that attaches wakes the thread. What is left is to look for removed files.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);

/// A thread that calls [`Writer::service`] when a reader comes or goes, and at least once per interval.
///
/// Dropping the value stops the thread and waits for its end. A writer may have only one service thread at a time.
///
/// # Examples
/// ```
/// use std::{sync::Arc, time::Duration};
/// use rsshm_channel::{ChannelName, ServiceThread, Writer, WriterOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let name = format!("rsshm-doc-service-{}", std::process::id());
/// let writer = Arc::new(Writer::open(ChannelName::new(name)?, WriterOptions::default())?);
/// let service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(250), |writer, report| match report {
///     Ok(report) => println!("{} readers", report.reader_count),
///     Err(error) => {
///         eprintln!("{error}");
///         // The thread ends without a further pass.
///         writer.stop_service();
///     }
/// })?;
/// // Publish frames here.
/// drop(service);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ServiceThread {
    writer: Arc<Writer>,
    stopped: Arc<AtomicBool>,
    /// `None` after the thread was joined.
    thread: Option<JoinHandle<()>>,
}

impl ServiceThread {
    /// Starts the thread. The first pass runs at once. Each further pass runs when a reader comes or goes, and at the
    /// latest after `interval`, or after two seconds while the writer is idle. `interval` bounds how late a killed
    /// reader is noticed; 250 ms is a good value.
    ///
    /// `on_report` gets the result of each pass, and may call [`Writer::stop_service`] to end the thread. It may also
    /// drop the `ServiceThread`. The thread then ends after this call of `on_report`, and nobody waits for its end.
    ///
    /// # Errors
    /// The system's error if the thread cannot be created.
    pub fn spawn(
        writer: Arc<Writer>,
        interval: Duration,
        mut on_report: impl FnMut(&Writer, Result<ServiceReport, Error>) + Send + 'static,
    ) -> io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        writer.resume_service();
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned()).spawn({
            let (writer, stopped) = (Arc::clone(&writer), Arc::clone(&stopped));
            move || {
                // Acquire: pairs with the release store in `request_stop`.
                while !stopped.load(Ordering::Acquire) {
                    on_report(&writer, writer.service());
                    // `on_report` may have called `stop_service`, which does not set `stopped`.
                    if writer.is_service_stopped() {
                        return;
                    }
                    let idle_interval = if writer.is_idle() { IDLE_INTERVAL } else { interval };
                    writer.wait_for_service(idle_interval.max(interval));
                }
            }
        })?;
        Ok(Self {
            writer,
            stopped,
            thread: Some(thread),
        })
    }

    /// Stops the thread and waits for its end. If the service thread itself calls this function, the function only asks
    /// the thread to end, and does not wait.
    ///
    /// # Errors
    /// If `on_report` panicked, the value of this panic.
    pub fn stop(mut self) -> thread::Result<()> {
        self.request_stop();
        self.join()
    }

    fn request_stop(&self) {
        // Release: pairs with the acquire load in the thread, which loads the flag after each wait.
        self.stopped.store(true, Ordering::Release);
        self.writer.stop_service();
    }

    fn join(&mut self) -> thread::Result<()> {
        match self.thread.take() {
            // A thread that joined itself would wait for ever.
            Some(thread) if thread.thread().id() != thread::current().id() => thread.join(),
            _ => Ok(()),
        }
    }
}

impl Drop for ServiceThread {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.request_stop();
            // The error is ignored, because a panic of `on_report` was printed when it happened.
            let _ = self.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::{ChannelName, WriterOptions};

    const HOUR: Duration = Duration::from_secs(3600);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn writer(test: &str) -> Arc<Writer> {
        let name = format!("rsshm-service-{test}-{}", std::process::id());
        Arc::new(Writer::open(ChannelName::new(name).unwrap(), WriterOptions::default()).unwrap())
    }

    #[test]
    fn drop_ends_a_sleeping_thread() {
        let writer = writer("drop");
        let (reported, reports) = mpsc::channel();
        let service = ServiceThread::spawn(Arc::clone(&writer), HOUR, move |_, report| {
            reported.send(report.unwrap().reader_count).unwrap();
        })
        .unwrap();
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(0));
        drop(service);
        // The thread has ended, so the values that `on_report` owned are dropped.
        assert_eq!(reports.recv(), Err(mpsc::RecvError));
        assert_eq!(Arc::strong_count(&writer), 1);
    }

    #[test]
    fn callback_can_end_the_thread_and_another_can_follow() {
        let writer = writer("callback");
        for _ in 0..2 {
            let (reported, reports) = mpsc::channel();
            let service = ServiceThread::spawn(Arc::clone(&writer), Duration::ZERO, move |writer, _| {
                writer.stop_service();
                reported.send(()).unwrap();
            })
            .unwrap();
            assert_eq!(reports.recv_timeout(PATIENCE), Ok(()));
            assert_eq!(
                reports.recv_timeout(PATIENCE),
                Err(mpsc::RecvTimeoutError::Disconnected)
            );
            service.stop().unwrap();
        }
    }

    #[test]
    fn callback_can_drop_its_own_thread() {
        let writer = writer("own");
        let own = Arc::<Mutex<Option<ServiceThread>>>::default();
        let (reported, reports) = mpsc::channel();
        // The lock is held until the `ServiceThread` is in `own`, where `on_report` looks for it.
        let mut place = own.lock().unwrap();
        let thread = ServiceThread::spawn(Arc::clone(&writer), HOUR, {
            let own = Arc::clone(&own);
            move |_, _| {
                drop(own.lock().unwrap().take());
                reported.send(()).unwrap();
            }
        });
        *place = Some(thread.unwrap());
        drop(place);
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(()));
        assert_eq!(
            reports.recv_timeout(PATIENCE),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
        // Nobody joins the thread, so the test waits here until the thread has dropped the writer. If the process ended
        // earlier, the channel's files would stay.
        let began = std::time::Instant::now();
        while Arc::strong_count(&writer) > 1 {
            assert!(began.elapsed() < PATIENCE, "the thread keeps the writer");
            thread::yield_now();
        }
    }

    #[test]
    fn stop_yields_a_panic_of_the_callback() {
        let writer = writer("panic");
        let (begun, begins) = mpsc::channel();
        let service = ServiceThread::spawn(writer, HOUR, move |_, _| {
            begun.send(()).unwrap();
            panic!("on purpose");
        })
        .unwrap();
        assert_eq!(begins.recv_timeout(PATIENCE), Ok(()));
        let panicked = service.stop().unwrap_err();
        assert_eq!(panicked.downcast_ref::<&str>(), Some(&"on purpose"));
    }
}
