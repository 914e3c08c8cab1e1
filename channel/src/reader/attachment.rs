//! A reader's hold on one segment: with a seat, which lets it pin frames, or as an observer, which only looks.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering, fence},
    },
    time::Duration,
};

use nix::errno::Errno;

use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{At, point},
        layout::{self, EVICTED, FIRST_SEAT_BYTE, FrameDescriptor, MAIL_ROOM, SEATS, flags, seat_state, state},
        pins::PinCounts,
    },
    segment::{
        self, Access, Segment,
        lock_file::{ControlFile, Taken},
        wait::Word,
    },
    sys::{
        clock,
        files::{self, Identity},
        lock::KeptLock,
    },
};

/// How long a newcomer waits for the writer to grant it pins before it begins with copies.
const GRANT_PATIENCE: Duration = Duration::from_millis(20);

/// A seat of the channel: the lock on its byte. It outlives segments, and the reader, while frames are in use.
#[derive(Debug)]
pub(crate) struct HeldSeat {
    index: usize,
    locks: Identity,
    ticket: AtomicU32,
    _lock: KeptLock,
}

/// A reader in one segment.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) segment: Arc<Segment>,
    /// Number of the newest frame when it was opened.
    pub(crate) head_then: u64,
    /// How many times the stream had ended by then.
    pub(crate) eos_then: u32,
    /// Number of the newest event, looked at after the head.
    pub(crate) events_then: u64,
    /// No frame behind this one goes away before this reader has taken any, as far as that is promised: 0 where it is not.
    pub(crate) kept_behind: u64,
    /// `None`: an observer.
    seated: Option<Seated>,
}

#[derive(Debug)]
struct Seated {
    seat: Arc<HeldSeat>,
    ticket: u32,
    counts: Mutex<PinCounts>,
    /// The grant at which the writer was last asked for more.
    asked_at: AtomicU32,
    /// Number of the newest letter sent.
    letters: Mutex<u64>,
}

/// Why a reader that wanted a seat has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observing {
    /// It asked for it.
    Wanted,
    /// The files' permissions allow no more, or their owner is not trusted.
    Permissions,
    /// All seats are taken.
    NoSeat,
}

/// The number of a frame, and the slot that the ring names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: u64,
    pub(crate) slot: usize,
}

/// What goes with a frame, copied.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) descriptor: FrameDescriptor,
    pub(crate) extra: Vec<u8>,
}

impl Attachment {
    /// Attaches to the segment that has the channel's name now. `None` while there is none with a living writer. `follows`:
    /// up to which number this reader has taken the frames of a former segment.
    pub(crate) fn open(
        name: &ChannelName,
        read_only: bool,
        former_seat: Option<&Arc<HeldSeat>>,
        follows: Option<u64>,
    ) -> Result<Option<(Self, Option<Observing>)>, Error> {
        let path = name.segment_path();
        let denied = |error: &io::Error| files::open_error(name.as_str(), &path, "read", error);
        let mut observing = read_only.then_some(Observing::Wanted);
        let mut opened = segment::open_file(name, !read_only);
        if opened.as_ref().is_err_and(is_denied) {
            observing = Some(Observing::Permissions);
            opened = segment::open_file(name, false);
        }
        let Some((file, stat)) = opened.map_err(|error| denied(&error))? else {
            return Ok(None);
        };
        if observing.is_none() && !files::is_trusted(&stat) {
            observing = Some(Observing::Permissions);
        }
        if observing.is_none() {
            let control = match ControlFile::open(name) {
                Err(Error::Denied { .. }) => {
                    observing = Some(Observing::Permissions);
                    None
                }
                control => control?,
            };
            if observing.is_none() {
                let Some(control) = control else {
                    return Ok(None);
                };
                let segment = Segment::open(name, file, &stat, Access::Attach)?;
                if !is_current(&segment) || control.identity() != segment.lock_identity() {
                    return Ok(None);
                }
                if let Some(seat) = former_seat.filter(|seat| seat.locks == control.identity()) {
                    return Ok(Self::enter(segment, Arc::clone(seat), follows).map(|it| (it, None)));
                }
                point(At::SegmentOpened);
                let seats = (0..SEATS as i64).map(|seat| FIRST_SEAT_BYTE + seat);
                return Ok(match control.take_first(seats)? {
                    Taken::Lock(byte, lock) => {
                        point(At::SeatLocked);
                        let seat = HeldSeat::new(byte, control.identity(), lock);
                        Self::enter(segment, Arc::new(seat), follows).map(|it| (it, None))
                    }
                    Taken::ByOthers => Some((Self::observe(segment), Some(Observing::NoSeat))),
                    Taken::NameChanged => None,
                });
            }
        }
        let segment = Segment::open(name, file, &stat, Access::Observe)?;
        Ok(is_current(&segment).then(|| (Self::observe(segment), observing)))
    }

    fn observe(segment: Segment) -> Self {
        Self::found(segment, None)
    }

    /// What there is on arrival.
    fn found(segment: Segment, seated: Option<Seated>) -> Self {
        let live = segment.control.live();
        // In this order: an end that is not in the count has no frame after it in the head.
        let eos_then = live.eos_count.load(Ordering::Acquire);
        let head_then = live.head.load(Ordering::Acquire);
        Self {
            head_then,
            eos_then,
            events_then: live.event_head.load(Ordering::Acquire),
            kept_behind: 0,
            segment: Arc::new(segment),
            seated,
        }
    }

    /// Sits down: from here on the writer counts this reader, and its pins. `None` when the segment was superseded
    /// meanwhile, unless this reader follows, and takes what is here before it goes on.
    fn enter(segment: Segment, seat: Arc<HeldSeat>, follows: Option<u64>) -> Option<Self> {
        let before_first = segment.fixed.first_number.saturating_sub(1);
        let follows = follows.filter(|position| *position <= before_first);
        let shared = segment.control.seat(seat.index);
        // The ticket is another than that of any former owner in this segment, so that what the writer knows of those is
        // not believed of this one. It is stored before the first pin, with which the writer sees it (release).
        let former = shared.ticket.load(Ordering::Relaxed);
        // Before the ticket, with which the writer sees it: what else a dead owner left is not this one's.
        shared.state.store(seat_state::NEW, Ordering::Relaxed);
        point(At::SeatCleared);
        let ticket = match seat.ticket.load(Ordering::Relaxed) {
            own if own > former => own,
            _ => former.wrapping_add(1),
        };
        seat.ticket.store(ticket, Ordering::Relaxed);
        shared.ticket.store(ticket, Ordering::Release);
        point(At::TicketStored);
        shared.pins.store(0, Ordering::Release);
        // A newcomer's first frame is the newest, or of a compressed stream one before it. It looks once more when it sits;
        // until then a lossless writer keeps what comes after this one. More than it retains may be gone already.
        let is_lossless = segment.fixed.flags & flags::LOSSLESS != 0;
        let retain = if is_lossless { segment.fixed.retain.max(1) } else { 1 };
        let before_newest = |head: u64| head.saturating_sub(retain.into());
        let head = segment.control.live().head.load(Ordering::Acquire);
        let position = follows.map_or(before_newest(head), |_| before_first);
        shared.position.store(position, Ordering::Release);
        shared.pid.store(std::process::id(), Ordering::Relaxed);
        point(At::PositionStored);
        // This owner has asked for nothing yet.
        shared.key_requests.store(0, Ordering::Relaxed);
        shared.mail_head.store(0, Ordering::Relaxed);
        // Release: who sees the state sees the position and the counts too.
        shared.state.store(seat_state::SITTING, Ordering::Release);
        point(At::Sitting);
        // Pairs with the fence in `supersede`: either a lossless writer sees that somebody is here, and waits before it
        // publishes into the next segment, or it is seen below that there is one.
        fence(Ordering::SeqCst);
        let index = seat.index;
        let mut entered = Self::found(
            segment,
            Some(Seated {
                seat,
                ticket,
                counts: Mutex::default(),
                asked_at: AtomicU32::new(u32::MAX),
                letters: Mutex::default(),
            }),
        );
        if follows.is_none() {
            if !is_current(&entered.segment) {
                entered.leave(seat_state::LEFT);
                return None;
            }
            // The frame that was the newest before it sat may be held by another reader, and those behind it gone.
            let kept_behind = before_newest(entered.head_then);
            let shared = entered.segment.control.seat(index);
            shared.position.store(kept_behind, Ordering::Release);
            if is_lossless {
                entered.kept_behind = kept_behind;
            }
        }
        // Only now a writer that waits for a reader goes on: with what comes from here on, which this one takes. Release: who
        // sees the state sees the position too.
        let state = &entered.segment.control.seat(index).state;
        state.store(seat_state::ATTACHED, Ordering::Release);
        point(At::Seated);
        entered.segment.ring_bell(Word::Writer);
        Some(entered)
    }

    /// The seat, to be taken along into the next segment.
    pub(crate) fn seat(&self) -> Option<&Arc<HeldSeat>> {
        self.seated.as_ref().map(|seated| &seated.seat)
    }

    /// Waits a moment until the writer has answered a newcomer, so that its first frame need not be copied.
    pub(crate) fn wait_for_grant(&self) {
        let until = clock::monotonic_ns() + GRANT_PATIENCE.as_nanos() as u64;
        while self
            .seated
            .as_ref()
            .is_some_and(|seated| seated.grant(&self.segment).is_none())
            && clock::monotonic_ns() < until
        {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Whether the writer found this seat holding more than it was granted; its pins no longer count.
    pub(crate) fn is_evicted(&self) -> bool {
        self.seated
            .as_ref()
            .is_some_and(|seated| seated.grant(&self.segment) == Some(EVICTED))
    }

    /// How many slots this seat may pin now.
    pub(crate) fn allowance(&self) -> u32 {
        match self.seated.as_ref().and_then(|seated| seated.grant(&self.segment)) {
            None | Some(EVICTED) => 0,
            Some(grant) => grant.min(layout::MAX_GRANT),
        }
    }

    /// Makes the writer look how many slots this seat holds, and so grant more, once for each grant that was too small.
    pub(crate) fn ask_for_more(&self, allowance: u32) {
        if let Some(seated) = &self.seated
            // Relaxed: one thread takes frames; twice would do no harm either.
            && seated.asked_at.swap(allowance, Ordering::Relaxed) != allowance
        {
            self.segment.ring_bell(Word::Writer);
        }
    }

    /// How many slots this seat pins now.
    pub(crate) fn held(&self) -> u32 {
        self.seated.as_ref().map_or(0, |seated| seated.counts().held())
    }

    /// Where the frame `number` is, as far as the ring and the slot say.
    pub(crate) fn find(&self, number: u64) -> Option<Place> {
        // Acquire: pairs with the writer's release store, after which the slot's number is there.
        let entry = self.segment.control.ring(number).load(Ordering::Acquire);
        let slot = (entry & 0xff) as usize;
        let named = entry >> 8 == number & (u64::MAX >> 8) && slot < self.segment.fixed.slot_count as usize;
        (named && self.segment.slot_head(slot).number.load(Ordering::Acquire) == number)
            .then_some(Place { number, slot })
    }

    /// Whether the frame that is at `place` cannot be decoded without those before it. A hint: it is not held.
    pub(crate) fn is_delta(&self, place: Place) -> bool {
        let descriptor = self.segment.read_descriptor(place.slot);
        // As in `copy_unpinned`.
        fence(Ordering::Acquire);
        let number = self.segment.slot_head(place.slot).number.load(Ordering::Relaxed);
        number == place.number && descriptor.is_delta()
    }

    /// Asks the writer for a frame that can be decoded without those before it; `false` where it does not hear that.
    pub(crate) fn request_key_unit(&self) -> bool {
        let Some(seated) = self.heard_seat() else {
            return false;
        };
        // Relaxed: a count of its own; the bell makes the writer look.
        let requests = &self.segment.control.seat(seated.seat.index).key_requests;
        requests.fetch_add(1, Ordering::Relaxed);
        self.segment.ring_bell(Word::Writer);
        true
    }

    /// Puts a letter into the mailbox; `false` where there is none, or no room for it, or nobody reads it any more.
    pub(crate) fn send_mail(&self, letter: &[u8]) -> bool {
        let Some(seated) = self.heard_seat().filter(|_| letter.len() <= MAIL_ROOM) else {
            return false;
        };
        let index = seated.seat.index;
        let mut letters = seated.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = self.segment.control.mail(index, *letters + 1) else {
            return false;
        };
        *letters += 1;
        place.write(*letters, letter);
        // Release: pairs with the acquire load of the writer, which finds the letter then.
        let head = &self.segment.control.seat(index).mail_head;
        head.store(*letters, Ordering::Release);
        drop(letters);
        self.segment.ring_bell(Word::Writer);
        true
    }

    /// The seat, while the writer hears what its owner asks for: not in a segment that is over.
    fn heard_seat(&self) -> Option<&Seated> {
        // Relaxed: what is asked for in the last moment is perhaps not heard either.
        let state = self.segment.control.live().state.load(Ordering::Relaxed);
        self.own_seat()
            .filter(|_| state & (state::SUPERSEDED | state::CLOSED) == 0)
    }

    /// The seat, unless it is that of the process that this one was forked from.
    fn own_seat(&self) -> Option<&Seated> {
        self.seated.as_ref().filter(|_| !self.segment.is_of_parent())
    }

    /// Pins a frame. `None` when the writer was faster, or when it is not what a frame may be.
    pub(crate) fn pin(self: &Arc<Self>, place: Place) -> Option<(PinnedFrame, Described)> {
        let seated = self.seated.as_ref()?;
        if !self.segment.is_backed(place.slot) {
            return None;
        }
        let shared = self.segment.control.seat(seated.seat.index);
        let number = &self.segment.slot_head(place.slot).number;
        if !seated.counts().pin(&shared.pins, number, place.slot, place.number) {
            self.tell_writer();
            return None;
        }
        let descriptor = self.segment.read_descriptor(place.slot);
        // Owns the pin from here on, also where the descriptor turns out to be nonsense.
        let mut frame = PinnedFrame {
            attachment: Arc::clone(self),
            slot: place.slot,
            offset: 0,
            size: 0,
        };
        if !descriptor.fits(self.segment.fixed.slot_size) {
            return None;
        }
        frame.offset = self.segment.slot_offset(place.slot) + descriptor.data_offset;
        frame.size = descriptor.size;
        let extra = self.segment.read_extra(place.slot, descriptor.extra_size);
        Some((frame, Described { descriptor, extra }))
    }

    /// Copies a frame without a pin, by pread. `None` when the writer was faster, it is not what a frame may be, or
    /// `target` has no room.
    pub(crate) fn copy_unpinned(&self, place: Place, target: &mut dyn crate::CopyTarget) -> Option<Described> {
        let number = &self.segment.slot_head(place.slot).number;
        // Acquire: pairs with the writer's release store of the number; the frame is there.
        if number.load(Ordering::Acquire) != place.number {
            return None;
        }
        let descriptor = self.segment.read_descriptor(place.slot);
        // Also that the slot is there at all, before room is made for what it is said to hold.
        if !descriptor.fits(self.segment.fixed.slot_size) || !self.segment.is_backed(place.slot) {
            return None;
        }
        let offset = self.segment.fixed.slots_offset + self.segment.slot_offset(place.slot) + descriptor.data_offset;
        let bytes = target.prepare(descriptor.size as usize)?;
        point(At::CopyUnpinned);
        if bytes.len() != descriptor.size as usize || files::read_exactly(&self.segment.file, bytes, offset) != Ok(true)
        {
            return None;
        }
        let extra = self.segment.read_extra(place.slot, descriptor.extra_size);
        point(At::CopyUnchecked);
        // Pairs with the fence in `take_for_writing`: had any copied byte been drawn after the number became 0, the load
        // below would see that 0, or a later number.
        fence(Ordering::Acquire);
        (number.load(Ordering::Relaxed) == place.number).then_some(Described { descriptor, extra })
    }

    /// Says that all frames up to `number` are taken or not wanted.
    pub(crate) fn set_position(&self, number: u64) {
        if let Some(seated) = &self.seated {
            // Release: pairs with the acquire load of a lossless writer that takes older slots then.
            self.segment
                .control
                .seat(seated.seat.index)
                .position
                .store(number, Ordering::Release);
            self.tell_writer();
        }
    }

    /// Says that this reader takes no more frames here: `seat_state::MOVED` or `seat_state::LEFT`. Pins stay.
    pub(crate) fn leave(&self, how: u32) {
        if let Some(seated) = self.own_seat() {
            point(At::LeaveDue);
            // Release: what was taken here before is over.
            self.segment
                .control
                .seat(seated.seat.index)
                .state
                .store(how, Ordering::Release);
            self.segment.ring_bell(Word::Writer);
        }
    }

    /// Wakes a writer that waits for something this reader has just given back.
    fn tell_writer(&self) {
        // Pairs with the fence of a writer that says it waits and then looks: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.segment.control.live().writer_waits.load(Ordering::Relaxed) != 0 {
            self.segment.ring_bell(Word::Writer);
        }
    }
}

impl Seated {
    fn counts(&self) -> std::sync::MutexGuard<'_, PinCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the writer grants this owner of the seat; `None` when it has not answered yet.
    fn grant(&self, segment: &Segment) -> Option<u32> {
        // Acquire: pairs with the writer's release store.
        let grant = segment.control.grant(self.seat.index).load(Ordering::Acquire);
        ((grant >> 32) as u32 == self.ticket).then_some(grant as u32)
    }
}

impl HeldSeat {
    fn new(byte: i64, locks: Identity, lock: KeptLock) -> Self {
        Self {
            index: (byte - FIRST_SEAT_BYTE) as usize,
            locks,
            // Some number that the owner before is unlikely to have had: in a new segment the writer tells them apart by
            // it alone.
            ticket: AtomicU32::new((clock::monotonic_ns() >> 10) as u32 | 1),
            _lock: lock,
        }
    }
}

#[cfg(feature = "fuzzing")]
impl Attachment {
    /// A reader in a segment without a name, in the first seat of a control file without one, or observing.
    pub(crate) fn for_fuzzing(segment: Segment, seated: bool) -> Option<Self> {
        if !seated {
            return Some(Self::observe(segment));
        }
        let lock = KeptLock::keep(segment.file.try_clone().ok()?).ok()?;
        let seat = HeldSeat::new(FIRST_SEAT_BYTE, segment.identity, lock);
        // It follows from before the first frame: nobody who writes it need be there.
        Self::enter(segment, Arc::new(seat), Some(0))
    }

    pub(crate) fn ticket_for_fuzzing(&self) -> u32 {
        self.seated.as_ref().map_or(0, |seated| seated.ticket)
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)
    )
}

/// Whether frames can still come here.
fn is_current(segment: &Segment) -> bool {
    let state = segment.control.live().state.load(Ordering::Acquire);
    state & (state::SUPERSEDED | state::CLOSED) == 0 && segment.has_writer()
}

/// A frame in place, in shared memory; its bytes stay as they are until it is dropped.
#[derive(Debug)]
pub struct PinnedFrame {
    attachment: Arc<Attachment>,
    slot: usize,
    offset: u64,
    size: u64,
}

impl AsRef<[u8]> for PinnedFrame {
    fn as_ref(&self) -> &[u8] {
        match self.attachment.segment.slots() {
            // SAFETY: the slot is backed (`pin` asked the file), the range is inside it (`fits`), and it is pinned for as
            // long as `self` lives, so that no writer that keeps to the protocol changes it.
            Some(slots) => unsafe { slots.slice(self.offset, self.size) },
            None => &[],
        }
    }
}

impl Drop for PinnedFrame {
    fn drop(&mut self) {
        if let Some(seated) = self.attachment.own_seat() {
            let shared = self.attachment.segment.control.seat(seated.seat.index);
            seated.counts().unpin(&shared.pins, self.slot);
            point(At::Unpinned);
            self.attachment.tell_writer();
        }
    }
}

/// A look at a channel that leaves no trace: it takes no seat, writes nothing, and needs read permission only.
#[derive(Debug)]
pub struct Observer {
    attachment: Attachment,
}

impl Observer {
    /// Looks at the channel as it is now; `None` when it has no living writer, or that has no frame yet.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Damaged`], [`Error::System`].
    pub fn open(name: &ChannelName) -> Result<Option<Self>, Error> {
        Ok(Attachment::open(name, true, None, None)?.map(|(attachment, _)| Self { attachment }))
    }

    /// The format of the frames.
    pub fn caps(&self) -> &str {
        &self.attachment.segment.caps
    }

    /// What never changes in the segment.
    pub fn fixed(&self) -> &layout::Fixed {
        &self.attachment.segment.fixed
    }

    /// Number of the newest frame, 0 before the first.
    pub fn head(&self) -> u64 {
        self.attachment.segment.control.live().head.load(Ordering::Acquire)
    }

    /// Whether this is still the channel's segment, and its writer alive.
    pub fn is_current(&self) -> bool {
        is_current(&self.attachment.segment)
    }

    /// Copies the newest frame; `None` when there is none, or the writer was faster.
    pub fn newest(&self, target: &mut dyn crate::CopyTarget) -> Option<(u64, FrameDescriptor)> {
        let number = self.head();
        let place = self.attachment.find(number).filter(|_| number != 0)?;
        self.attachment
            .copy_unpinned(place, target)
            .map(|described| (number, described.descriptor))
    }
}
